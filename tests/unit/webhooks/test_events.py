"""The closed list of events and the body of a delivery."""

import json

from keepless.ids import Id
from keepless.webhooks.events import EventType, mask_of, payload, types_in


def test_a_set_of_types_survives_as_bits() -> None:
    for one in EventType:
        assert types_in(mask_of([one, one])) == [one]
    assert types_in(mask_of(list(EventType))) == list(EventType)
    assert types_in(0) == []


def test_a_body_holds_ids_and_an_instant_and_is_always_the_same() -> None:
    args = Id("evt_a"), EventType.BATCH_COMPLETED, Id("batch_b"), 1_790_000_000_999
    body = payload(*args)
    assert body == payload(*args)
    assert json.loads(body) == {
        "id": "evt_a",
        "object": "event",
        "type": "batch.completed",
        "created_at": 1_790_000_000,
        "data": {"id": "batch_b"},
    }


def test_bits_keep_their_meaning() -> None:
    """They are stored: a type is only ever added at the end."""
    assert [one.value for one in types_in(0b11111111)] == [
        "batch.completed",
        "batch.failed",
        "batch.expired",
        "batch.cancelled",
        "file.expiring",
        "fine_tuning.job.succeeded",
        "fine_tuning.job.failed",
        "fine_tuning.job.cancelled",
    ]
