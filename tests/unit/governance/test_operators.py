"""Operators as people: made and removed on the machine itself, signed in by link or password, on both databases."""

import pytest

from keepless.accounts.roles import Role
from keepless.db import Database
from keepless.errors import Problem
from keepless.governance.operators import Operators, UnknownOperatorError
from keepless.governance.sign_in import SignIn
from keepless.receipts.statement import EntryKind
from tests.support.governed import deploy

PASSWORD = "a password that is long"


def test_an_operator_signs_in_and_is_gone_when_removed(database: Database) -> None:
    deployment = deploy(database)
    operators = Operators(database, deployment.clock, deployment.log)
    sign_in = SignIn(database, deployment.clock, deployment.log)
    secret, operator = operators.link("Ops@example.com")
    assert operators.link("ops@example.com ")[1] == operator
    assert [(one.id, one.email, one.role) for one in operators.all()] == [(operator, "ops@example.com", Role.OPERATOR)]
    opened = sign_in.by_link(secret, password=PASSWORD)
    session = sign_in.session(opened.secret)
    assert session is not None
    principal = session.principal
    assert (principal.id, principal.organization_id, principal.role) == (operator, None, Role.OPERATOR)
    assert principal.loosen_until_ms is None, "operators change no organization's controls"
    assert sign_in.by_password("ops@example.com", PASSWORD).person.id == operator
    assert operators.remove("ops@example.com") == operator
    assert sign_in.session(opened.secret) is None
    with pytest.raises(Problem):
        sign_in.by_password("ops@example.com", PASSWORD)
    with pytest.raises(UnknownOperatorError):
        operators.remove("ops@example.com")
    owner = deployment.initial.organization
    assert all(one.role is not Role.OPERATOR for one in deployment.access.members(owner.organization_id))
    assert len(deployment.kinds(EntryKind.MEMBER_REMOVED)) == 1
