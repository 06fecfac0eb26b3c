"""The admin API of a whole deployment without a server: real database, vault, log and lease; calls go through ASGI."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware

from keepless.accounts.fence import Fence
from keepless.accounts.lease import Lease
from keepless.admin.app import routes
from keepless.admin.health import Check, Metric
from keepless.admin.services import Services
from keepless.config import ModelConfig, Settings
from keepless.db import Database
from keepless.expiry.sweep import Sweeper
from keepless.governance.access import Access
from keepless.governance.cases import CaseDecisions
from keepless.governance.change import Office
from keepless.governance.controls import DataControls
from keepless.governance.erasure import Erasure
from keepless.governance.holds import Holds
from keepless.governance.openings import Openings
from keepless.governance.organizations import Organizations
from keepless.governance.people import People
from keepless.governance.refusals import Refusals
from keepless.governance.sign_in import SignIn
from keepless.http import problems
from keepless.ids import Id
from keepless.vault.rows import Kept
from keepless.webhooks.endpoints import Endpoints
from keepless.webhooks.send import Sender
from keepless.webhooks.signature import Secrets
from tests.support.asgi import Answer, call
from tests.support.governed import Deployment, deploy
from tests.support.vault import Rig, make_rig

MODELS = (ModelConfig(id="smollm2"), ModelConfig(id="lab/large:8b"))


@dataclass
class Platform:
    """One deployment with its first organization, and how to ask it."""

    rig: Rig
    deployment: Deployment
    services: Services
    app: Starlette
    checks: list[Check]
    metrics: list[Metric]

    @property
    def owner_key(self) -> str:
        return self.deployment.initial.organization.admin_key

    @property
    def operator_key(self) -> str:
        return self.deployment.initial.operator_key

    @property
    def api_key(self) -> str:
        return self.deployment.initial.organization.api_key

    @property
    def organization_id(self) -> Id:
        return self.deployment.organization_id

    @property
    def project_id(self) -> Id:
        return self.deployment.project_id

    def ask(
        self, method: str, path: str, body: object = None, *, key: str | None = "owner", raw: bytes | None = None
    ) -> Answer:
        """One call below `/v1`. `key`: a secret, or owner | operator | api; None sends none."""
        known = {"owner": self.owner_key, "operator": self.operator_key, "api": self.api_key}
        headers = {} if key is None else {"authorization": f"Bearer {known.get(key, key)}"}
        data = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        return call(self.app, method, f"/v1{path}", headers, data)

    def json(self, method: str, path: str, body: object = None, *, key: str | None = "owner") -> Any:
        """The answer of a call that must succeed."""
        answer = self.ask(method, path, body, key=key)
        assert answer.status == 200, answer.body
        return json.loads(answer.body)

    def error(self, method: str, path: str, body: object = None, **how: Any) -> tuple[int, str]:
        """Status and code of a call that must be refused."""
        answer = self.ask(method, path, body, **how)
        assert answer.status >= 400, answer.body
        return answer.status, json.loads(answer.body)["error"]["code"]

    def put(self, organization_id: Id | None = None, project_id: Id | None = None, **options: Any) -> Kept:
        """One kept object of the first organization, or of another one."""
        return self.rig.put(organization_id or self.organization_id, project_id or self.project_id, **options)

    def other(self) -> dict[str, str]:
        """A further organization with its keys."""
        found: dict[str, str] = self.json("POST", "/organizations", {"name": "Other"}, key="operator")
        return found


@contextlib.contextmanager
def platform(database: Database, folder: Path, settings: Settings | None = None) -> Iterator[Platform]:
    """A platform for the time of a `with`."""
    rig = make_rig(database, folder)
    deployment = deploy(database, rig.clock)
    lease = Lease(database, rig.clock)
    office = Office(database, rig.clock, Fence(database, rig.clock, lease.refresh_soon), rig.log)
    sweeper = Sweeper(database, rig.clock, rig.clock, rig.vault, rig.log)
    sign_in = SignIn(database, rig.clock, rig.log)
    checks: list[Check] = []
    metrics: list[Metric] = []
    services = Services(
        settings=settings or Settings(data_dir=str(folder), models=list(MODELS)),
        db=database,
        clock=rig.clock,
        lease=lease,
        log=rig.log,
        organizations=Organizations(office),
        access=Access(office),
        people=People(office, sign_in),
        sign_in=sign_in,
        controls=DataControls(office),
        sweeper=sweeper,
        holds=Holds(database, rig.clock, rig.log, sweeper),
        cases=CaseDecisions(database, rig.clock, rig.log),
        openings=Openings(database, rig.clock, rig.log, rig.vault),
        refusals=Refusals(database, rig.clock, rig.log),
        erasure=Erasure(database, rig.clock, rig.log),
        webhooks=Endpoints(database, rig.clock, rig.log, Secrets(lambda: bytes(32)), Sender()),
        location=rig.guard,
        checks=lambda: checks,
        metrics=lambda: metrics,
    )
    app = Starlette(
        routes=routes(services),
        middleware=[Middleware(problems.Guard)],
        exception_handlers=dict(problems.handlers()),
    )
    app.router.redirect_slashes = False
    lease.start()
    try:
        yield Platform(rig, deployment, services, app, checks, metrics)
    finally:
        lease.stop()
