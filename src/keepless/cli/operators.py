"""`keepless operators`: people who run the platform and sign in; on the machine itself, without any key."""

import contextlib
from collections.abc import Iterator

import click

from keepless.app.compose import open_deployment
from keepless.cli.options import store_command
from keepless.cli.outcome import FindingError
from keepless.cli.output import Screen, when
from keepless.config import Settings
from keepless.governance.operators import Operators, UnknownOperatorError

__all__ = ["operators"]


@contextlib.contextmanager
def _opened(settings: Settings) -> Iterator[Operators]:
    deployment = open_deployment(settings)
    try:
        yield Operators(deployment.db, deployment.clock, deployment.log)
    finally:
        deployment.close()


@click.group()
def operators() -> None:
    """People who run the platform (on the machine itself)."""


@operators.command("link")
@click.argument("email")
@store_command
def operators_link(screen: Screen, settings: Settings, /, email: str) -> None:
    """A link with which an operator signs in, once, within 15 minutes; makes the operator, if there is none."""
    if email.count("@") != 1 or len(email) > 254:
        raise click.UsageError("EMAIL is an e-mail address")
    with _opened(settings) as found:
        secret, operator = found.link(email)
    told = {"user_id": operator, "sign_in_path": f"/sign-in/link?token={secret}"}
    screen.fields(told, "The link is good once, for 15 minutes", told)


@operators.command("list")
@store_command
def operators_list(screen: Screen, settings: Settings, /) -> None:
    """List operators."""
    with _opened(settings) as found:
        known = found.all()
    data = [{"id": one.id, "email": one.email, "added_at": one.created_at_ms // 1000} for one in known]
    rows = [(one.id, one.email, when(one.created_at_ms // 1000)) for one in known]
    screen.rows({"data": data}, "Operators", ("id", "e-mail", "added"), rows)


@operators.command("revoke")
@click.argument("email")
@store_command
def operators_revoke(screen: Screen, settings: Settings, /, email: str) -> None:
    """Remove an operator: signed out everywhere."""
    with _opened(settings) as found:
        try:
            operator = found.remove(email)
        except UnknownOperatorError:
            raise FindingError("no operator has this address") from None
    told = {"user_id": operator, "deleted": True}
    screen.fields(told, "Removed", told)
