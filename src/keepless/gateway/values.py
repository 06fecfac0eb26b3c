"""Checks of single JSON values and the wording of their refusals.

Holds: `Check` factories (boolean, integer, number, text, choice, members) and the problems they raise. Leaves out:
which parameter takes which (one table an endpoint). A refusal names a parameter from our tables, a type or a bound;
never a value, and never a name that a client made up.
"""

from collections.abc import Callable, Collection
from collections.abc import Set as AbstractSet
from typing import Any, Final

from keepless.errors import Code, Problem

__all__ = [
    "Check",
    "bad_type",
    "bad_value",
    "boolean",
    "choice",
    "integer",
    "members",
    "missing",
    "number",
    "text",
    "unknown_member",
    "unsupported",
]

Check = Callable[[Any], None]

_TYPES: Final = {
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    str: "a string",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


def bad_type(param: str, expected: str, value: object) -> Problem:
    """A value of another JSON type than `expected` (a text of ours)."""
    got = _TYPES.get(type(value), "something else")
    return Problem(
        400, Code.INVALID_TYPE, f"Invalid type for '{param}': expected {expected}, but got {got} instead.", param=param
    )


def bad_value(param: str, expected: str) -> Problem:
    """A value out of bounds."""
    return Problem(400, Code.INVALID_VALUE, f"Invalid value for '{param}': expected {expected}.", param=param)


def missing(param: str) -> Problem:
    """A required parameter that is not there."""
    return Problem(400, Code.MISSING_PARAMETER, f"Missing required parameter: '{param}'.", param=param)


def unsupported(param: str, what: str | None = None) -> Problem:
    """What this model cannot do, in Groq's words."""
    return Problem(
        400, Code.UNSUPPORTED_PARAMETER, f"`{what or param}` is not supported with this model", param=param, retry=False
    )


def unknown_member(param: str | None, position: int, allowed: Collection[str]) -> Problem:
    """A name nobody defined: told by its position, because the name itself is the client's text."""
    where = f"in '{param}' " if param else ""
    return Problem(
        400,
        Code.UNKNOWN_PARAMETER,
        f"Unrecognized request argument {where}at position {position}. Supported: {', '.join(sorted(allowed))}.",
        param=param,
    )


def boolean(param: str) -> Check:
    """True or false."""

    def check(value: Any) -> None:
        if type(value) is not bool:
            raise bad_type(param, "a boolean", value)

    return check


def integer(param: str, low: int, high: int) -> Check:
    """A whole number, both bounds included; 3.0 is one, true is not."""

    def check(value: Any) -> None:
        if type(value) is not int and not (type(value) is float and value.is_integer()):
            raise bad_type(param, "an integer", value)
        if not low <= value <= high:
            raise bad_value(param, f"an integer from {low} to {high}")

    return check


def number(param: str, low: float, high: float) -> Check:
    """A number, both bounds included."""

    def check(value: Any) -> None:
        if type(value) is not float and type(value) is not int:
            raise bad_type(param, "a number", value)
        if not low <= value <= high:
            raise bad_value(param, f"a number from {low:g} to {high:g}")

    return check


def text(param: str, longest: int) -> Check:
    """A string of at most `longest` characters."""

    def check(value: Any) -> None:
        if type(value) is not str:
            raise bad_type(param, "a string", value)
        if len(value) > longest:
            raise bad_value(param, f"a string of at most {longest} characters")

    return check


def choice(param: str, allowed: Collection[str]) -> Check:
    """One of a few strings."""

    def check(value: Any) -> None:
        if type(value) is not str:
            raise bad_type(param, "a string", value)
        if value not in allowed:
            raise bad_value(param, f"one of {', '.join(sorted(allowed))}")

    return check


def members(param: str, value: Any, allowed: AbstractSet[str]) -> dict[str, Any]:
    """`value` as an object with no other members than `allowed`. Raises `Problem`."""
    if type(value) is not dict:
        raise bad_type(param, "an object", value)
    if not value.keys() <= allowed:
        raise unknown_member(param, next(i for i, key in enumerate(value) if key not in allowed), allowed)
    return value
