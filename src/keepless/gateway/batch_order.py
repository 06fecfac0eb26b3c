"""What a client asks of batches, checked: a new batch, a page of the list.

Holds: `order_of` (the body of a creation), `page_of` (the query of a list). Leaves out: what the named file is (the
book), privacy switches (`switches`; a batch must keep something, so any that tightens is a conflict).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from keepless.batches.book import Order
from keepless.batches.values import BatchEndpoint
from keepless.clock import DAY_MS
from keepless.errors import Code, Problem
from keepless.gateway.orders import invalid, known, limit_of, metadata_of, pairs_of, text_of
from keepless.ids import Id, Prefix, parse

__all__ = ["Listed", "order_of", "page_of", "window_text"]

_HOUR_MS: Final = 3_600_000
_WINDOW: Final = re.compile(r"([1-9][0-9]{0,2})([hd])\Z")
_LIFE_S: Final = range(3600, 30 * 86_400 + 1)
_MOST_IDS: Final = 200
_NAMES: Final = frozenset({"input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after"})


@dataclass(frozen=True, slots=True)
class Listed:
    """A page that is asked for. `ids` None = all; `after` None = from the newest."""

    limit: int = 20
    after: Id | None = None
    ids: tuple[Id, ...] | None = None
    nothing: bool = False  # what it should follow cannot be there


def order_of(body: Mapping[str, Any], repeat_key: bytes | None) -> Order:
    """A new batch. Raises `Problem` 400 that names a parameter of ours and echoes nothing."""
    known(body, _NAMES)
    given = {name: text_of(body, name) for name in ("input_file_id", "endpoint", "completion_window")}
    try:
        endpoint = BatchEndpoint(given["endpoint"])
    except ValueError:
        served = ", ".join(one.value for one in BatchEndpoint)
        raise invalid("endpoint", f"it must be one of {served}") from None
    return Order(
        endpoint=endpoint,
        input_file_id=parse(given["input_file_id"], Prefix.FILE),
        window_ms=_window_ms(given["completion_window"]),
        metadata=metadata_of(body.get("metadata")),
        output_life_ms=_life_ms(body.get("output_expires_after")),
        repeat_key=repeat_key,
        window_in_days=given["completion_window"].endswith("d"),
    )


def page_of(query: bytes) -> Listed:
    """A page of the list: OpenAI's `after` and `limit`, Groq's `cursor` and `id` (repeated, bracketed or with commas).

    Raises `Problem` 400.
    """
    pairs = pairs_of(query, _MOST_IDS + 10)
    single: dict[str, str] = {}
    ids: list[str] = []
    for name, text in pairs:
        plain = name.removesuffix("[]")
        if plain in ("id", "ids"):
            ids += text.split(",")
        elif name in ("limit", "after", "cursor") and name not in single:
            single[name] = text
        else:
            raise Problem(400, Code.UNKNOWN_PARAMETER, "Known here, once each: after, limit, cursor; and id.")
    if len(ids) > _MOST_IDS:
        raise invalid("id", f"at most {_MOST_IDS} ids")
    follows = single.get("after") or single.get("cursor") or None
    after = None if follows is None else parse(follows, Prefix.BATCH)
    wanted = tuple(found for text in ids if (found := parse(text, Prefix.BATCH)) is not None)
    return Listed(
        limit=limit_of(single.get("limit")),
        after=after,
        ids=wanted if ids else None,
        nothing=(follows is not None and after is None) or (bool(ids) and not wanted),
    )


def window_text(window_ms: int, *, in_days: bool) -> str:
    """A window as it was asked for: clients compare what they sent."""
    hours = window_ms // _HOUR_MS
    return f"{hours // 24}d" if in_days else f"{hours}h"


def _window_ms(text: str) -> int:
    match = _WINDOW.match(text)
    hours = 0 if match is None else int(match[1]) * (24 if match[2] == "d" else 1)
    if not 24 <= hours <= 7 * 24:
        raise invalid("completion_window", "it must be from 24h to 7d, in whole hours or days")
    return hours * _HOUR_MS


def _life_ms(value: object) -> int | None:
    if value is None:
        return None
    says = f"anchor created_at, and seconds from {_LIFE_S.start} to {_LIFE_S.stop - 1}"
    if type(value) is not dict or value.keys() != {"anchor", "seconds"} or value["anchor"] != "created_at":
        raise invalid("output_expires_after", says)
    seconds = value["seconds"]
    if type(seconds) is not int or seconds not in _LIFE_S:
        raise invalid("output_expires_after", says)
    return min(seconds * 1000, 30 * DAY_MS)
