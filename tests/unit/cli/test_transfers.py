"""`keepless transfers export`."""

from tests.support.platform import Platform
from tests.unit.cli.conftest import Terminal


def test_the_register_is_exported(served: Platform, terminal: Terminal) -> None:
    told = terminal.json("transfers", "export")
    assert (told["object"], told["transfers"], told["undeclared"]) == ("transfers.register", [], [])
    assert told["location"]["writable"] is True
    assert told == served.json("GET", "/organization/transfers")
