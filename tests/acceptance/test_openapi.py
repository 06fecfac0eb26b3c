"""Schemathesis walks the whole description against a running server: thousands of valid and invalid calls.

Left out, because they would end the run itself: deleting the admin key that asks, archiving the project. Not asked:
`unsupported_method` (the server's own parser refuses methods that nothing here has) and `positive_data_acceptance` (a
schema cannot say that an address is taken or an epoch stale).
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.serve import Served, serve, upstream_models
from tests.support.upstream import MockUpstream

RUINOUS = ("delete_admin_key", "archive_project")
# One handler under many names: what is said of `usage_moderations` is said of these.
ALIKE = tuple(
    f"usage_{name}"
    for name in (
        "images",
        "vector_stores",
        "code_interpreter_sessions",
        "file_search_calls",
        "web_search_calls",
        "decisions",
        "audio_speeches",
    )
)


# What is too large is refused before what follows it is read, which may be wrong in another way.
CONFIG = """
[checks]
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 406, 413, 415, 422, 429]
"""


ACCOUNTS = "projects|users|invites|admin_api_keys|limits|usage|costs"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with MockUpstream() as upstream, serve(tmp_path, upstream_models(upstream.base_url)) as server:
        yield server


@pytest.mark.parametrize(
    ("key", "paths"),
    [
        ("admin_key", f"^/v1/organization/({ACCOUNTS})"),
        ("admin_key", f"^/v1/organization/(?!{ACCOUNTS})|^/v1/webhook|^/healthz|^/readyz|^/log|^/metrics|^/openapi"),
        ("operator_key", "^/v1/organizations|^/v1/organization/(legal_holds|abuse_cases|audit_logs|open_requests)"),
        (
            "api_key",
            "^/v1/(chat|models|responses|files|uploads|batches|embeddings|audio|fine_tun)",
        ),
    ],
)
def test_what_the_description_says_is_true(served: Served, tmp_path: Path, key: str, paths: str) -> None:
    command = [
        *(
            str(Path(sys.executable).with_name("schemathesis")),
            "run",
            f"{served.url}/openapi.json",
            "--url",
            served.url,
            "--no-color",
        ),
        *("--header", f"Authorization: Bearer {served.told[key]}", "--include-path-regex", paths),
        *(part for name in (*RUINOUS, *ALIKE) for part in ("--exclude-operation-id", name)),
        *("--phases", "coverage,fuzzing", "--max-examples", "3", "--seed", "1", "--max-failures", "20"),
        *("--exclude-checks", "unsupported_method,positive_data_acceptance", "--generation-database", "none"),
    ]
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=110, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-6000:]
    assert "Tested: 0" not in done.stdout
    assert not [line for line in served.log if "server:request:failed" in line]
