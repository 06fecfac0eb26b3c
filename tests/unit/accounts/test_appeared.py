"""When a model was first there."""

from keepless.accounts.appeared import appeared
from keepless.db import Database


def test_what_was_said_first_stays(database: Database) -> None:
    assert appeared(database, ["a", "b"], 5) == {"a": 5, "b": 5}
    assert appeared(database, ["b", "c"], 7) == {"b": 5, "c": 7}
    assert appeared(database, ["a", "b", "c"], 9) == {"a": 5, "b": 5, "c": 7}
    assert appeared(database, [], 9) == {}
