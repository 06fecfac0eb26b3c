"""One row of the admin API: what a route asks for, what it is given and what it answers.

Holds: `Endpoint` (a row of `keepless.admin.matrix`), `Ask` (one authenticated, authorised, parsed call) and `Scope`.
Leaves out: HTTP (`keepless.admin.app`), the rows themselves.
"""

import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from keepless.accounts.principal import AdminPrincipal
from keepless.accounts.roles import Permission
from keepless.admin.services import Services
from keepless.errors import Code, Problem
from keepless.governance.change import not_found
from keepless.ids import Id, Prefix, parse

__all__ = ["Ask", "Endpoint", "Scope"]

Q = TypeVar("Q", bound=msgspec.Struct)
B = TypeVar("B", bound=msgspec.Struct)


class Scope(StrEnum):
    """Whose things a route is about."""

    OWN = "own"  # the organization of the key
    NAMED = "named"  # the same; an operator names one with `organization_id`
    PLATFORM = "platform"  # no organization


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask(Generic[Q, B]):
    """One call. `organization` is the caller's own, or the one an operator named (it may not exist)."""

    caller: AdminPrincipal
    organization: Id | None
    ids: Mapping[str, str]
    query: Q
    body: B

    @property
    def organization_id(self) -> Id:
        """Whose things this is about. Raises `Problem` 400 when an operator has not said."""
        if self.organization is None:
            raise Problem(
                400,
                Code.MISSING_PARAMETER,
                "Missing required parameter: organization_id. An operator's key belongs to no organization.",
                param="organization_id",
            )
        return self.organization

    def id(self, name: str, prefix: Prefix) -> Id:
        """An id from the path. Raises `Problem` 404 for what cannot be one."""
        found = parse(self.ids[name], prefix)
        if found is None:
            raise not_found()
        return found


Handler = Callable[[Services, Ask[Any, Any]], object]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method on one path below `/v1`. What it takes and answers is read off the handler's own annotations."""

    method: str
    path: str
    permission: Permission
    handler: Handler
    scope: Scope = Scope.OWN
    query: type[msgspec.Struct] = field(init=False)
    body: type[msgspec.Struct] = field(init=False)
    answer: Any = field(init=False)
    lines: bool = field(init=False)  # the answer is a stream of lines, each of them `answer`

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(self.handler, include_extras=True)
        query, body = typing.get_args(hints["ask"])
        answer = hints["return"]
        lines = False
        if typing.get_origin(answer) is Annotated:  # bytes of a known shape: one object, or one a line
            form, answer = typing.get_args(answer)
            lines = form is not bytes
        for name, kind in (("query", query), ("body", body), ("answer", answer), ("lines", lines)):
            object.__setattr__(self, name, kind)

    @property
    def summary(self) -> str:
        """The first line of the handler's own description, without what is only for who calls it in Python."""
        return (self.handler.__doc__ or "").partition("\n")[0].partition(" Raises `")[0]
