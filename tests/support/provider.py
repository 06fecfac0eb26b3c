"""A real OpenID Connect provider, a process of its own."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence

PROVIDER = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
from oidc_provider_mock import User, _storage, run_server_in_thread

def when(code):  # it asked the person for proof just now; one of them it did not ask
    return int(time.time()) - (3600 if code.user_id == "stale" else 0)

_storage.AuthorizationCode.get_auth_time = when
users = [User(**one) for one in json.loads(sys.argv[1])]
with run_server_in_thread(user_claims=users) as server:
    print(server.server_port, flush=True)
    sys.stdin.read()
"""


def person(sub: str, *groups: str, verified: bool = True, email: str | None = None) -> dict[str, object]:
    claims = {"email": email or f"{sub}@example.com", "email_verified": verified, "groups": groups, "name": sub}
    return {"sub": sub, "claims": claims}


@contextlib.contextmanager
def provider(people: Sequence[dict[str, object]]) -> Iterator[str]:
    """A provider that knows these people; its address."""
    command = [sys.executable, "-c", PROVIDER, json.dumps(people)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        yield f"http://localhost:{int(process.stdout.readline())}"
        process.stdin.close()
        process.wait(90)
