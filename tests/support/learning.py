"""Small training runs: orders and examples for the toy model (or any other), in this process."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from keepless.content import Content, Purpose
from keepless.training.order import Event, Order

Json = dict[str, Any]
T = TypeVar("T")
FACTS = [("Who?", "Ada."), ("Where?", "At sea."), ("When?", "Now."), ("Why?", "So."), ("How?", "Well.")]


def order(weights: str, **more: Any) -> Order:
    values: Json = {
        "sha256": None,
        "base": "tiny",
        "context": 128,
        "n_epochs": 2,
        "batch_size": 2,
        "learning_rate_multiplier": 5.0,
        "seed": 5,
        "threads": 1,
        "checkpoint_seconds": 0,
    }
    return Order(weights=weights, **(values | more))


def example(question: str, answer: str, **more: Any) -> Json:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **more}


def lines(examples: Sequence[Json]) -> Content:
    return Content(b"\n".join(json.dumps(one).encode() for one in examples) + b"\n")


def facts(pairs: Sequence[tuple[str, str]] = FACTS) -> Content:
    return lines([example(*pair) for pair in pairs])


def nothing() -> Content:
    return Content(b"")


def bare(content: Content) -> bytes:
    return content.reveal(Purpose.PROVE)


def never() -> bool:
    return False


def counted(calls: list[None]) -> Callable[[], None]:
    return lambda: calls.append(None)


def of_kind(kind: type[T], events: Iterator[Event] | Sequence[Event]) -> list[T]:
    return [event for event in events if isinstance(event, kind)]
