"""What usage costs at the prices of today: sums of money by day, in OpenAI's shape.

Holds: `Prices`, `costs`. Leaves out: where prices are set (`[[models]]`), bills, currencies other than US dollars.
Prices are not remembered: a changed price holds for what was used before, too. A model that is not configured any more
costs nothing; requests of which only sums remain are taken for tokens. Money is reckoned in decimals and becomes a
binary number only in the answer.

A line item is a model and what was counted of it: `<model>, input` and `<model>, output` in tokens, `<model>, audio` in
seconds, `<model>, characters`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final, Literal, NamedTuple

import msgspec

from keepless.config import Endpoint, ModelConfig
from keepless.db import Database
from keepless.usage.results import UsagePage, paged
from keepless.usage.sums import Group, Of, Sum, UsageQuestion, summed

__all__ = ["MOST_DAYS", "Costs", "Prices", "costs"]

MOST_DAYS: Final = 180  # on a page, as OpenAI has it
_ENDPOINTS: Final = (
    *(Endpoint.CHAT, Endpoint.RESPONSES, Endpoint.EMBEDDINGS),
    *(Endpoint.TRANSCRIPTIONS, Endpoint.TRANSLATIONS, Endpoint.SPEECH),
)
_HEARD: Final = frozenset({Endpoint.TRANSCRIPTIONS, Endpoint.TRANSLATIONS})
_MILLION: Final = Decimal(1_000_000)
_MS_AN_HOUR: Final = Decimal(3_600_000)
Unit = Literal["tokens", "characters", "duration_seconds"]


class Amount(msgspec.Struct, kw_only=True):
    """Money."""

    value: float
    currency: Literal["usd"] = "usd"


class Costs(msgspec.Struct, kw_only=True):
    """What one line, project or key cost; the whole where nothing was grouped by."""

    amount: Amount
    project_id: str | None
    api_key_id: str | None
    line_item: str | None
    quantity: float | None
    quantity_unit: Unit | None
    user_id: None = None
    api_source: None = None
    object: Literal["organization.costs.result"] = "organization.costs.result"


@dataclass(frozen=True, slots=True)
class _Price:
    """US dollars: a million tokens or characters, an hour of sound."""

    input: Decimal
    output: Decimal
    characters: Decimal
    hour: Decimal


_FREE: Final = _Price(Decimal(0), Decimal(0), Decimal(0), Decimal(0))
_TUNED: Final = "ft:"


class Prices:
    """The price of each model, as configured."""

    def __init__(self, models: Sequence[ModelConfig]) -> None:
        self._of: Final[Mapping[str, _Price]] = {
            model.id: _Price(
                Decimal(str(model.input_price)),
                Decimal(str(model.output_price)),
                Decimal(str(model.character_price)),
                Decimal(str(model.audio_hour_price)),
            )
            for model in models
        }

    def of(self, model: str | None) -> _Price:
        """The price of a model, of a tuned one (`ft:<base>:<digits>`) its base's; nothing for an unknown one."""
        name = model or ""
        if name.startswith(_TUNED):
            name = name.removeprefix(_TUNED).rpartition(":")[0]
        return self._of.get(name, _FREE)


class _Line(NamedTuple):
    project_id: str | None
    key_id: str | None
    item: str | None


@dataclass(slots=True)
class _Charge:
    amount: Decimal = Decimal(0)
    quantity: Decimal = Decimal(0)
    unit: Unit | None = None


def costs(
    db: Database, asked: UsageQuestion, prices: Prices, *, by_line: bool, lines: Sequence[str] = ()
) -> UsagePage[Costs]:
    """What was used, in money; of these line items when any is named. Raises `Problem` 400 as `summed` does."""
    wanted = frozenset(lines)
    detailed = replace(asked, group_by=asked.group_by | {Group.MODEL, Group.ENDPOINT}, most=MOST_DAYS)

    def shape(sums: Sequence[tuple[Of, Sum]]) -> list[Costs]:
        charges: dict[_Line, _Charge] = defaultdict(_Charge)
        for of, one in sums:
            for item, quantity, amount, unit in _items(of, one, prices):
                if wanted and item not in wanted:
                    continue
                charge = charges[_Line(of.project_id, of.key_id, item if by_line else None)]
                charge.amount += amount
                charge.quantity += quantity
                charge.unit = unit
        return [_shape(line, charges[line], by_line=by_line) for line in sorted(charges, key=_order)]

    return paged(summed(db, detailed, _ENDPOINTS, gaps=True), shape)


def _items(of: Of, one: Sum, prices: Prices) -> list[tuple[str, Decimal, Decimal, Unit]]:
    """The lines of one sum: name, quantity, money, unit. Lines of nothing are left out."""
    price = prices.of(of.model)
    found: list[tuple[str, int, Decimal, Unit]] = []
    if of.endpoint is Endpoint.SPEECH:
        found.append(("characters", one.prompt_tokens, one.prompt_tokens * price.characters / _MILLION, "characters"))
    else:
        found.append(("input", one.prompt_tokens, one.prompt_tokens * price.input / _MILLION, "tokens"))
        found.append(("output", one.completion_tokens, one.completion_tokens * price.output / _MILLION, "tokens"))
    if of.endpoint in _HEARD:
        found.append(("audio", one.audio_ms, one.audio_ms * price.hour / _MS_AN_HOUR, "duration_seconds"))
    return [
        (f"{of.model}, {what}", Decimal(number) / (1000 if unit == "duration_seconds" else 1), amount, unit)
        for what, number, amount, unit in found
        if number
    ]


def _order(line: _Line) -> tuple[str, ...]:
    return tuple(part or "" for part in line)


def _shape(line: _Line, charge: _Charge, *, by_line: bool) -> Costs:
    return Costs(
        amount=Amount(value=float(charge.amount)),
        project_id=line.project_id,
        api_key_id=line.key_id,
        line_item=line.item,
        quantity=float(charge.quantity) if by_line else None,
        quantity_unit=charge.unit if by_line else None,
    )
