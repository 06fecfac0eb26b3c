"""A usage record takes values of closed types and nothing else."""

import inspect
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from keepless.config import UpstreamRetention
from keepless.db import EnumText, Holds, IdText
from keepless.errors import Code
from keepless.ids import Id
from keepless.policy.controls import Source
from keepless.policy.decision import DiscardReason
from keepless.usage.record import Flag, Phase, Record, Role, Sketch, roles_from, roles_to
from keepless.usage.tables import usage, usage_gap, usage_kind, usage_sketch
from tests.support.usage import record

HOSTILE: list[Any] = ["my secret prompt", b"bytes", "", 1.5, -1, 2**63, ["x"], {"a": 1}, Code.INTERNAL.value]
IDS = {"request_id", "organization_id", "project_id", "key_id", "model", "object_id"}
ENUM = {"endpoint", "code", "outcome", "discard", "source", "route", "upstream"}


def fields_of(kind: type[Record | Sketch]) -> list[str]:
    return [name for name in inspect.signature(kind).parameters if name != "self"]


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


def test_rows_have_the_values_of_their_columns() -> None:
    each: dict[str, Any] = {"streamed": True, "batch": True, "status": 418}
    for at, name in enumerate(fields_of(Record)):
        if name in IDS:
            each[name] = Id(f"mark-{at}")
        elif name not in ENUM | {"sketch", "streamed", "batch", "status"}:
            each[name] = 1000 + at
    made = record(
        **each,
        code=Code.UPSTREAM_CUT,
        discard=DiscardReason.CAPPED,
        source=Source.PROJECT,
        upstream=UpstreamRetention.ZERO,
    )
    row = dict(zip(names_of(usage, 1), made.row(7), strict=True)) | dict(
        zip(names_of(usage_kind, 2), made.kind(), strict=True)
    )
    assert row.pop("kind_id") == 7
    assert row.pop("at") == made.at_ms
    assert row == {name: getattr(made, name) for name in fields_of(Record) if name not in {"at_ms", "sketch"}}
    shape = Sketch(
        phase=Phase.ANSWER, flags=Flag.TOOLS, **{name: at for at, name in enumerate(fields_of(Sketch)[2:], 1)}
    )
    sketch = dict(zip(names_of(usage_sketch, 1), shape.row("req_", 5), strict=True))
    assert (sketch.pop("request_id"), sketch.pop("at")) == ("req_", 5)
    assert sketch == msgspec.structs.asdict(shape)


def names_of(table: sa.Table, skipped: int) -> list[str]:
    return [column.name for column in table.columns][skipped:]


@pytest.mark.parametrize("table", [usage, usage_kind, usage_sketch, usage_gap], ids=lambda t: t.name)
def test_every_column_is_a_number_an_enum_or_an_id(table: Any) -> None:
    assert table.info["holds"] is Holds.USAGE_METADATA
    texts = {
        column.name
        for column in table.columns
        if not isinstance(column.type, IdText | EnumText) and column.type.python_type not in {int, bool}
    }
    assert texts <= {"model", "digest"}


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
