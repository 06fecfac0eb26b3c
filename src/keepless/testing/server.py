"""A running server for tests: its keys, organizations of one's own, and the question whether anything was kept.

Holds: `Server`, `Organization`, `serve`. Leaves out: pytest (the package), the search itself (prover).

Texts to look for are only ever in memory; a failing assertion names them by their number, because what a test prints
is kept by many a CI.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from keepless.prover.deployment import Deployment
from keepless.prover.look import look
from keepless.prover.models import patience
from keepless.prover.search import Search
from keepless.prover.upstream import FaultUpstream, Temper
from keepless.prover.wire import ask

__all__ = ["Organization", "Server", "serve"]

EMBEDDED: Final = "smollm2-135m-instruct"
_SHORTEST: Final = 12  # letters: anything shorter stands somewhere by accident


@dataclass(frozen=True, repr=False)
class Organization:
    """One organization of the server: keys for clients, its data controls, what is kept of it."""

    url: str
    organization_id: str
    project_id: str
    api_key: str
    admin_key: str
    deployment: Deployment
    since: float

    @property
    def base_url(self) -> str:
        """For `openai`."""
        return f"{self.url}/v1"

    @property
    def client(self) -> dict[str, str]:
        """Arguments of `openai.OpenAI` and `openai.AsyncOpenAI`."""
        return {"base_url": self.base_url, "api_key": self.api_key}

    @property
    def groq_client(self) -> dict[str, str]:
        """Arguments of `groq.Groq` and `groq.AsyncGroq`."""
        return {"base_url": self.url, "api_key": self.api_key}

    def set_controls(self, **controls: object) -> dict[str, Any]:
        """Change data controls, e.g. `zero_data_retention=True, purge=True`; the state that is now in force."""
        return self.ask("POST", "/organization/data_controls", controls)

    def ask(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        """One call of the admin API, `path` below `/v1`. Raises `ProverError` when it is refused."""
        return ask(self.url, self.admin_key, method, f"/v1{path}", body)

    def retained_objects(self) -> list[dict[str, Any]]:
        """What is kept of this organization now, at most the 100 oldest."""
        return list(self.ask("GET", "/organization/retained_objects?limit=100")["data"])

    def assert_nothing_kept(self, *texts: str) -> None:
        """Nothing of this organization is kept, and none of `texts` stands anywhere in the deployment, in any form.

        A text must be unique (`secrets.token_hex(8)`), or it is found where it stands for another reason. Raises
        AssertionError, which never contains a text; ValueError for a text of fewer than 12 letters.
        """
        if any(len(text) < _SHORTEST for text in texts):
            raise ValueError(f"a text to look for has at least {_SHORTEST} letters")
        kept = [f"{one['id']} ({one['class']}, {one['reason']})" for one in self.retained_objects()]
        found = sorted(
            f"text {finding.marker} in {finding.place}: {finding.what} ({finding.form})"
            for searched in (look(Search.of_texts(texts), self.deployment, None, since=self.since) if texts else [])
            for finding in searched.findings
        )
        if kept or found:
            raise AssertionError("kept: " + "; ".join([*kept, *found]))


@dataclass(frozen=True, repr=False)
class Server(Organization):
    """The server, and its first organization. `upstream` answers for the models named after `Temper`."""

    operator_key: str
    upstream: FaultUpstream

    @property
    def data_dir(self) -> Path:
        """Its data folder."""
        return self.deployment.data_dir

    @property
    def log(self) -> str:
        """What it wrote on standard error so far."""
        return self.deployment.written()["stderr"].decode("utf-8", "replace")

    def organization(self, name: str = "tests", **controls: object) -> Organization:
        """A further organization, with data controls of its own: what other tests leave behind is not in it."""
        made = ask(self.url, self.operator_key, "POST", "/v1/organizations", {"name": name})
        keys = (made["id"], made["project_id"], made["api_key"], made["admin_key"])
        organization = Organization(self.url, *keys, self.deployment, self.since)
        if controls:
            organization.set_controls(**controls)
        return organization


@contextlib.contextmanager
def serve(
    within: Path, *, models: Sequence[Mapping[str, Any]] | None = None, settings: Mapping[str, Any] | None = None
) -> Iterator[Server]:
    """A server in a new folder within `within`, for the time of a `with`. Raises `ProverError` when it does not start.

    `models`: as in `[[models]]` of keepless.toml; default: the embedded model. Models named after `Temper` are always
    there. `settings`: the rest of keepless.toml. A `say` of the upstream is what those models answer.
    """
    since = time.time()
    with FaultUpstream() as upstream:
        failing: Mapping[str, Any] = {"engine": "openai", "base_url": upstream.base_url, "retention": "zero"}
        own = [{"id": temper.value, **failing, **patience(temper)} for temper in Temper]
        wanted = [{"id": EMBEDDED}] if models is None else models
        with Deployment(within, settings or {}, [*wanted, *own]) as deployment:
            deployment.start()
            told = deployment.told
            keys = (told["organization_id"], told["project_id"], told["api_key"], told["admin_key"])
            yield Server(deployment.url, *keys, deployment, since, told["operator_key"], upstream)
            deployment.stop()
