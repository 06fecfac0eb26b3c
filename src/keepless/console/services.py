"""What the console stands on: one value, made by the composition root, given to every page."""

from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request

from keepless.accounts.lease import Lease
from keepless.accounts.principal import AdminPrincipal
from keepless.batches.book import Book
from keepless.clock import Clock
from keepless.config import Settings
from keepless.db import Database
from keepless.expiry.sweep import Sweeper
from keepless.files.service import Files
from keepless.governance.access import Access
from keepless.governance.cases import CaseDecisions
from keepless.governance.controls import DataControls
from keepless.governance.holds import Holds
from keepless.governance.openings import Openings
from keepless.governance.organizations import Organizations
from keepless.governance.people import People
from keepless.governance.refusals import Refusals
from keepless.ids import Id
from keepless.receipts.log import Log
from keepless.vault.locations import LocationGuard

__all__ = ["Doorkeeper", "Services", "Visitor"]


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who looks. `csrf` is what a form must send back; None = known by a header, which no foreign page can send."""

    principal: AdminPrincipal
    name: str
    csrf: str | None = None


Doorkeeper = Callable[[Request], Visitor | None]  # None: nobody is signed in


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Every call on these blocks: pages are made in worker threads."""

    settings: Settings
    db: Database
    clock: Clock
    lease: Lease
    log: Log
    organizations: Organizations
    access: Access
    controls: DataControls
    sweeper: Sweeper
    people: People
    holds: Holds
    cases: CaseDecisions
    openings: Openings
    refusals: Refusals
    location: LocationGuard
    files: Files
    batches: Book
    file_deleted: Callable[[Id], object]  # what else ends with a file
    doorkeeper: Doorkeeper
