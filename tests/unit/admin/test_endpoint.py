"""A row reads what it takes and answers off its handler; an ask knows whose things it is about."""

from typing import Annotated

import pytest

from keepless.accounts.principal import AdminPrincipal
from keepless.accounts.roles import Permission, Role
from keepless.admin.account_shapes import Project
from keepless.admin.asks import NoBody, NoQuery, PageQuery, ProjectCreate
from keepless.admin.endpoint import Ask, Endpoint, Scope
from keepless.admin.services import Services
from keepless.admin.shapes import Deleted, Page
from keepless.errors import Problem
from keepless.ids import Id, Prefix, mint


def handler(_: Services, ask: Ask[PageQuery, ProjectCreate]) -> Page[Project]:
    """Do a thing.

    At length.
    """
    raise AssertionError(ask)


def raw(_: Services, ask: Ask[NoQuery, NoBody]) -> Annotated[bytes, Deleted]:
    """Bytes of a known shape."""
    raise AssertionError(ask)


def test_a_row_reads_its_handler() -> None:
    row = Endpoint("GET", "/x", Permission.USAGE_READ, handler)
    assert (row.query, row.body, row.answer, row.scope) == (PageQuery, ProjectCreate, Page[Project], Scope.OWN)
    assert row.summary == "Do a thing."
    assert Endpoint("GET", "/x", Permission.USAGE_READ, raw).answer is Deleted


def ask(organization: Id | None, **ids: str) -> Ask[NoQuery, NoBody]:
    caller = AdminPrincipal(mint(Prefix.OPERATOR_KEY), None, Role.OPERATOR)
    return Ask(caller=caller, organization=organization, ids=ids, query=NoQuery(), body=NoBody())


def test_an_operator_must_say_whose() -> None:
    own = mint(Prefix.ORGANIZATION)
    assert ask(own).organization_id == own
    with pytest.raises(Problem) as caught:
        _ = ask(None).organization_id
    assert (caught.value.status, caught.value.param) == (400, "organization_id")


@pytest.mark.parametrize("text", ["", "obj_", "MARKER", "obj_" + "a" * 24 + "\n", "proj_" + "a" * 24])
def test_what_cannot_be_an_id_is_404(text: str) -> None:
    with pytest.raises(Problem) as caught:
        ask(None, id=text).id("id", Prefix.OBJECT)
    assert caught.value.status == 404
