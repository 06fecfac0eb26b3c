"""What the admin API stands on: one value, made by the composition root, given to every handler."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from keepless.accounts.lease import Lease
from keepless.admin.health import Check, Metric
from keepless.clock import Clock
from keepless.config import Settings
from keepless.db import Database
from keepless.expiry.sweep import Sweeper
from keepless.governance.access import Access
from keepless.governance.cases import CaseDecisions
from keepless.governance.controls import DataControls
from keepless.governance.erasure import Erasure
from keepless.governance.holds import Holds
from keepless.governance.openings import Openings
from keepless.governance.organizations import Organizations
from keepless.governance.people import People
from keepless.governance.refusals import Refusals
from keepless.governance.sign_in import SignIn
from keepless.receipts.log import Log
from keepless.vault.locations import LocationGuard
from keepless.webhooks.endpoints import Endpoints

__all__ = ["Services"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """`checks` and `metrics` are asked at every `/readyz` and `/metrics`, in a worker thread."""

    settings: Settings
    db: Database
    clock: Clock
    lease: Lease
    log: Log
    organizations: Organizations
    access: Access
    people: People
    sign_in: SignIn
    controls: DataControls
    sweeper: Sweeper
    holds: Holds
    cases: CaseDecisions
    openings: Openings
    refusals: Refusals
    erasure: Erasure
    webhooks: Endpoints
    location: LocationGuard
    checks: Callable[[], Sequence[Check]]
    metrics: Callable[[], Sequence[Metric]]
