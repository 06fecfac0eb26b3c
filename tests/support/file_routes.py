"""`/files` and `/uploads` over ASGI: an organization, its files in a vault, and calls with its key."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware

from keepless.accounts.lease import Lease
from keepless.db import Database
from keepless.files.uploads import Uploads
from keepless.gateway import files, uploads
from keepless.http import problems
from keepless.ids import Id
from keepless.usage.ledger import Ledger
from tests.support.asgi import Answer, call
from tests.support.files import Shelf, make_shelf
from tests.support.governed import Deployment, deploy
from tests.support.vault import make_rig

FORM = "multipart/form-data; boundary=b0"


class FileRoutes:
    """One deployment. `downloaded`: the files whose last byte was handed out."""

    def __init__(self, deployment: Deployment, lease: Lease, shelf: Shelf) -> None:
        self.deployment, self.shelf = deployment, shelf
        rig = shelf.rig
        self.downloaded: list[Id] = []
        ledger = Ledger(rig.database, max_rows=1000)
        in_parts = Uploads(rig.database, rig.clock, rig.vault, shelf.files, shelf.sweeper)
        self.app = Starlette(
            routes=[
                *files.routes(
                    shelf.files,
                    lease=lease,
                    ledger=ledger,
                    clock=rig.clock,
                    uploads=2,
                    on_downloaded=self.downloaded.append,
                ),
                *uploads.routes(in_parts, lease=lease, ledger=ledger, clock=rig.clock, at_a_time=2),
            ],
            middleware=[Middleware(problems.Guard)],
            exception_handlers=dict(problems.handlers()),
        )

    def ask(self, method: str, path: str, body: object = None, *, key: str | None = None, **headers: str) -> Answer:
        """A call with the organization's key."""
        sent = {"authorization": f"Bearer {key or self.deployment.initial.organization.api_key}"}
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return call(self.app, method, path, sent | named, raw)

    def json(self, *args: Any, **named: Any) -> Any:
        """What a call that goes well answers."""
        answer = self.ask(*args, **named)
        assert answer.status == 200, answer.body
        return json.loads(answer.body)

    def refused(self, *args: Any, **named: Any) -> tuple[int, str, str | None]:
        """Status, code and param of a refusal, which echoes nothing."""
        answer = self.ask(*args, **named)
        assert b"MARKER" not in answer.body
        error = json.loads(answer.body)["error"]
        return answer.status, error["code"], error["param"]

    def another(self) -> str:
        """The key of another organization."""
        made = self.deployment.organizations.create(self.deployment.operator, name="Other")
        return made.api_key


def form(*parts: tuple[str, str | None, bytes]) -> bytes:
    """A multipart body of (name, file name, data)."""
    out = b""
    for name, file_name, data in parts:
        extra = "" if file_name is None else f'; filename="{file_name}"'
        out += f'--b0\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode() + data + b"\r\n"
    return out + b"--b0--\r\n"


@contextlib.contextmanager
def file_routes(database: Database, folder: Path) -> Iterator[FileRoutes]:
    """For one test."""
    rig = make_rig(database, folder)
    deployment = deploy(database, rig.clock)
    lease = Lease(database, rig.clock)
    deployment.office.fence.__init__(database, rig.clock, lease.refresh_soon)
    lease.start()
    try:
        yield FileRoutes(deployment, lease, make_shelf(database, rig))
    finally:
        lease.stop()
