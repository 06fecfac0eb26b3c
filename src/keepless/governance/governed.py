"""What both faces of governance stand on, the admin API and the console: one value, made by the composition root."""

from dataclasses import dataclass

from keepless.accounts.lease import Lease
from keepless.clock import Clock
from keepless.config import Settings
from keepless.db import Database
from keepless.expiry.sweep import Sweeper
from keepless.governance.access import Access
from keepless.governance.cases import CaseDecisions
from keepless.governance.controls import DataControls
from keepless.governance.holds import Holds
from keepless.governance.openings import Openings
from keepless.governance.organizations import Organizations
from keepless.governance.people import People
from keepless.governance.refusals import Refusals
from keepless.receipts.log import Log
from keepless.vault.locations import LocationGuard

__all__ = ["Governed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Governed:
    """Every call on these blocks: they are used in worker threads."""

    settings: Settings
    db: Database
    clock: Clock
    lease: Lease
    log: Log
    organizations: Organizations
    access: Access
    people: People
    controls: DataControls
    sweeper: Sweeper
    holds: Holds
    cases: CaseDecisions
    openings: Openings
    refusals: Refusals
    location: LocationGuard
