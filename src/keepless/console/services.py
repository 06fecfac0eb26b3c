"""What the console stands on: one value, made by the composition root, given to every page."""

from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request

from keepless.accounts.principal import AdminPrincipal
from keepless.batches.book import Book
from keepless.files.service import Files
from keepless.governance.exports import Exports
from keepless.governance.governed import Governed
from keepless.ids import Id
from keepless.tuning.book import Book as Tunings
from keepless.tuning.ending import Ending

__all__ = ["Doorkeeper", "Services", "Visitor"]


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who looks. `csrf` is what a form must send back; None = known by a header, which no foreign page can send."""

    principal: AdminPrincipal
    name: str
    csrf: str | None = None


Doorkeeper = Callable[[Request], Visitor | None]  # None: nobody is signed in


@dataclass(frozen=True, slots=True, kw_only=True)
class Services(Governed):
    """Every call on these blocks: pages are made in worker threads."""

    exports: Exports
    files: Files
    batches: Book
    tunings: Tunings
    tuning_ends: Ending
    file_deleted: Callable[[Id], object]  # what else ends with a file
    doorkeeper: Doorkeeper
