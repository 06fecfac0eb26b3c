"""One visit to one page: who looks, what was asked, what is answered.

Holds: `Visit`, `Row` (a row of the table of pages) and the three kinds of answer. Leaves out: HTTP (app), templates
(render). Values of a query or a form are what a person typed: they are parsed into ids, enums and numbers before they
are used, and reach a page only through the templates, which escape.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from keepless.accounts.roles import ROLES, Permission
from keepless.console.services import Services, Visitor
from keepless.errors import Code, ErrorType, Problem
from keepless.governance.change import not_found
from keepless.ids import Id, Prefix, parse

__all__ = ["Answer", "Download", "Redirect", "Row", "View", "Visit", "Whose"]

E = TypeVar("E", bound=StrEnum)


class Whose(StrEnum):
    """Whose things a page is about."""

    OWN = "own"  # the visitor's organization
    ANY = "any"  # that, or for operators the whole platform


@dataclass(frozen=True, slots=True)
class View:
    """A page, or a fragment of one, to be rendered."""

    template: str
    values: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200


@dataclass(frozen=True, slots=True)
class Redirect:
    """Go on there, with GET. `done` names a line of `render.DONE`, which the next page shows."""

    location: str
    done: str | None = None


def _not_told(_: bool) -> None:
    """For who does not ask how it ended."""


@dataclass(frozen=True, slots=True)
class Download:
    """A file to save. Its name is ours. `ended`: told once a streamed one is over, and whether all of it was sent."""

    name: str
    media_type: str
    body: bytes | Iterator[bytes]
    ended: Callable[[bool], None] = _not_told


Answer = View | Redirect | Download


@dataclass(frozen=True, slots=True)
class Visit:
    """One authenticated, authorised request."""

    visitor: Visitor
    path: str
    ids: Mapping[str, str]
    query: Mapping[str, str]
    form: Mapping[str, str]
    origin: str = ""  # scheme and host as the browser knows them
    partial: bool = False  # asked by htmx for a part of a page

    @property
    def organization_id(self) -> Id:
        """Whose console it is. Raises `Problem` 404 for an operator, who belongs to none."""
        found = self.visitor.principal.organization_id
        if found is None:
            raise not_found()
        return found

    def whose(self) -> Id | None:
        """The visitor's organization; for an operator the one that was named, if any. Raises `Problem` 404."""
        own = self.visitor.principal.organization_id
        return own if own is not None else self.asked_id("organization", Prefix.ORGANIZATION)

    def named(self) -> Id:
        """The same, where one must be named. Raises `Problem` 404."""
        found = self.whose()
        if found is None:
            raise not_found()
        return found

    def may(self, permission: Permission) -> bool:
        """Whether the visitor's role has a permission; pages show what can be done, routes check it again."""
        return permission in ROLES[self.visitor.principal.role]

    def id(self, name: str, prefix: Prefix) -> Id:
        """An id from the path. Raises `Problem` 404 for what cannot be one."""
        found = parse(self.ids[name], prefix)
        if found is None:
            raise not_found()
        return found

    def asked_id(self, name: str, prefix: Prefix) -> Id | None:
        """An id from the query or the form; None when nothing was given. Raises `Problem` 404."""
        text = self.asked(name)
        if not text:
            return None
        found = parse(text, prefix)
        if found is None:
            raise not_found()
        return found

    def asked(self, name: str) -> str:
        """What was typed, without space around it."""
        return (self.form.get(name) or self.query.get(name) or "").strip()

    def text(self, name: str, longest: int = 200) -> str:
        """A text that must be given. Raises `Problem` 400."""
        found = self.form.get(name, "").strip()
        if not 1 <= len(found) <= longest or any(ord(letter) < 32 or ord(letter) == 127 for letter in found):
            message = f"{name} is a text of 1 to {longest} printable characters."
            raise Problem(400, Code.INVALID_VALUE, message, param=name)
        return found

    def choice(self, name: str, kind: type[E]) -> E | None:
        """One of a closed list; None when nothing was chosen. Raises `Problem` 400."""
        typed = self.asked(name)
        if not typed:
            return None
        try:
            return kind(typed)
        except ValueError:
            raise Problem(400, Code.INVALID_VALUE, f"{name} is not one of those offered.", param=name) from None

    def number(self, name: str, low: int, high: int) -> int | None:
        """A whole number; None when nothing was typed. Raises `Problem` 400."""
        typed = self.asked(name)
        if not typed:
            return None
        if not (typed.isascii() and typed.isdigit() and len(typed) <= 12 and low <= int(typed) <= high):
            raise Problem(400, Code.INVALID_VALUE, f"{name} is a whole number from {low} to {high}.", param=name)
        return int(typed)

    def confirm(self, phrase: str) -> None:
        """What is final is confirmed by typing. Raises `Problem` 400."""
        if self.form.get("confirm", "").strip().lower() != phrase:
            message = f"Nothing was changed: to confirm, the words to type are: {phrase}."
            raise Problem(400, Code.INVALID_VALUE, message, param="confirm", type=ErrorType.INVALID_REQUEST)


Handler = Callable[[Services, Visit], Answer]


@dataclass(frozen=True, slots=True)
class Row:
    """One method on one path, and the permission it asks for."""

    method: str
    path: str
    permission: Permission
    handler: Handler
    whose: Whose = Whose.OWN
