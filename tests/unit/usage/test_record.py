"""A usage record takes values of closed types and nothing else."""

from typing import Any

import msgspec
import pytest

from keepless.db import EnumText, Holds, IdText
from keepless.errors import Code
from keepless.ids import Id
from keepless.usage.record import Flag, Phase, Record, Role, Sketch, roles_from, roles_to
from keepless.usage.tables import usage, usage_gap, usage_sketch
from tests.support.usage import record

HOSTILE: list[Any] = ["my secret prompt", b"bytes", "", 1.5, -1, 2**63, ["x"], {"a": 1}, Code.INTERNAL.value]
ENUM = {"endpoint", "code", "outcome", "discard", "source", "route", "upstream"}


def fields_of(kind: type[Record | Sketch]) -> list[str]:
    return [field.name for field in msgspec.structs.fields(kind)]


@pytest.mark.parametrize("value", HOSTILE, ids=repr)
@pytest.mark.parametrize("name", fields_of(Record))
def test_no_field_of_a_record_takes_what_a_client_typed(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match="usage record takes"):
        record(**{name: value})


@pytest.mark.parametrize("value", [*HOSTILE, None], ids=repr)
@pytest.mark.parametrize("name", fields_of(Sketch))
def test_no_field_of_a_sketch_takes_what_a_client_typed(name: str, value: Any) -> None:
    values: dict[str, Any] = {"phase": Phase.ANSWER, name: value}
    with pytest.raises(TypeError, match="takes"):
        Sketch(**values)


def test_a_text_that_is_an_id_elsewhere_is_not_one_here() -> None:
    with pytest.raises(TypeError):
        record(model="gpt-4")
    assert record(model=Id("gpt-4")).model == "gpt-4"


def test_only_failures_have_a_sketch() -> None:
    with pytest.raises(TypeError):
        record(sketch=Sketch(phase=Phase.ANSWER))
    assert record(code=Code.UPSTREAM_CUT, sketch=Sketch(phase=Phase.ANSWER)).sketch is not None


def test_rows_have_a_value_for_each_column() -> None:
    assert len(record().row()) == len(usage.columns) - 1
    assert len(Sketch(phase=Phase.ANSWER, flags=Flag.TOOLS).row("req_", 1)) == len(usage_sketch.columns) - 1
    columns = [column.name for column in usage.columns][1:]
    assert [name if name != "at_ms" else "at" for name in sorted_as_row()] == columns


def sorted_as_row() -> list[str]:
    """The names of the record's fields in the order in which `row` gives them, found by giving each its own value."""
    names = [name for name in fields_of(Record) if name not in ENUM | {"sketch", "streamed"}]
    marks: dict[str, Any] = {}
    for at, name in enumerate(names):
        wants_id = name in {"request_id", "organization_id", "project_id", "key_id", "model", "object_id"}
        marks[name] = Id(f"mark-{at}") if wants_id else 1000 + at
    marked = {str(value): name for name, value in marks.items()}
    row = record(**marks).row()
    others = iter(name for name in fields_of(Record) if name in ENUM | {"streamed"})
    return [marked.get(str(value)) or next(others) for value in row]


@pytest.mark.parametrize("table", [usage, usage_sketch, usage_gap], ids=lambda t: t.name)
def test_every_column_is_a_number_an_enum_or_an_id(table: Any) -> None:
    assert table.info["holds"] is Holds.USAGE_METADATA
    texts = {
        column.name
        for column in table.columns
        if not isinstance(column.type, IdText | EnumText) and column.type.python_type not in {int, bool}
    }
    assert texts <= {"model"}


ROLES = {
    "none": ([], []),
    "usual": (["system", "user"], [Role.SYSTEM, Role.USER]),
    "unknown": (["user", "my secret role"], [Role.USER, Role.OTHER]),
    "many": (["tool"] * 30, [Role.TOOL] * 20),
}


@pytest.mark.parametrize("case", ROLES)
def test_roles_are_packed_into_one_number(case: str) -> None:
    roles, expected = ROLES[case]
    number = roles_from(roles)
    assert 0 <= number < 2**60
    assert roles_to(number) == expected
