"""Names of tuned models: `ft:<base>:<org id>/<name>-<12hex>`, written and read.

Holds: `name_of`, `ledger_name`, `parse_name`, `Named`, `DEFAULT_NAME`, `good_name`. Pure.

What the customer has chosen stands only between the slash and the last hyphen. A model is found by its twelve digits
and its owner; the rest is compared with what is sealed. Usage and logs know `ft:<base>:<12hex>`.
"""

import re
from dataclasses import dataclass
from typing import Final

from keepless.ids import Id, Prefix, parse

__all__ = ["DEFAULT_NAME", "LONGEST_NAME", "Named", "good_name", "ledger_name", "name_of", "parse_name"]

DEFAULT_NAME: Final = "tuned"  # for who chose none
LONGEST_NAME: Final = 64
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_FULL: Final = re.compile(r"ft:(.{1,96}):(org_[a-z2-7]{24})/([A-Za-z0-9][A-Za-z0-9._-]{0,63})-([0-9a-f]{12})\Z")


@dataclass(frozen=True, slots=True)
class Named:
    """A name taken apart."""

    base_model: str
    organization_id: Id
    name: str
    hexadecimal: str


def good_name(text: str) -> bool:
    """Whether a customer may call a model so."""
    return _NAME.match(text) is not None


def name_of(base_model: str, organization_id: Id, name: str, hexadecimal: str) -> str:
    """What a model is called by its owners."""
    return f"ft:{base_model}:{organization_id}/{name}-{hexadecimal}"


def ledger_name(base_model: str, hexadecimal: str) -> str:
    """What it is called where no content may stand."""
    return f"ft:{base_model}:{hexadecimal}"


def parse_name(text: str) -> Named | None:
    """A name taken apart, or None when it cannot be one (never raises, never echoes)."""
    match = _FULL.match(text)
    if match is None:
        return None
    organization_id = parse(match[2], Prefix.ORGANIZATION)
    return None if organization_id is None else Named(match[1], organization_id, match[3], match[4])
