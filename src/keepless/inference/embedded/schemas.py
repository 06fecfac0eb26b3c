"""What the embedded engine can make of a JSON schema: what it holds to, what it does not, what it must never see.

Holds: `bounded` (an end to what has none), `refuse_schema`, `unsupported` (the words of a refusal). Leaves out: where
schemas stand in a request (dialect).

llama.cpp makes a grammar of a schema (json-schema-to-grammar) and follows every way that it leaves open, for each word
it knows, in the one thread that answers everybody. A bound that is under its counterpart is counted down past zero, so
that the grammar has no end: the engine was seen to take 15 GB and to answer nobody. Keywords that it does not know it
leaves out without a word; a client that asked for `strict` is told instead.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from keepless.errors import Code, Problem

__all__ = ["LONGEST_STRING", "bounded", "refuse_schema", "unsupported"]

LONGEST_STRING: Final = 256  # characters of an argument whose schema sets no bound
_MOST_ITEMS: Final = 16
# Beyond these the engine was seen to stand still for minutes.
_MOST_CHOICES: Final = 500  # members of enum, anyOf, oneOf and allOf, and alternatives in patterns, together
_MOST_OPTIONAL: Final = 200  # properties of one object that may be absent (of several: the root of the sum of squares)
_MOST_LOOSE: Final = 64  # signs in one pattern that let something be absent or repeated
_LONGEST_PATTERN: Final = 1000  # characters
_LARGEST: Final = 2**31 - 1  # the engine's own numbers go round beyond it
_BOUNDS: Final = (("minLength", "maxLength"), ("minItems", "maxItems"))
_ESCAPED: Final = re.compile(r"\\.", re.DOTALL)
_CLASS: Final = re.compile(r"\[[^\]]*\]")
_REPEATED: Final = re.compile(r"\{([^}]*)\}?")
_TIMES: Final = re.compile(r"(\d{0,9})(?:,(\d{0,9}))?")
_HELD_TO: Final = re.compile(r"\^.*\$", re.DOTALL)
_NOT_HELD_TO: Final = re.compile(r"\\[A-Za-z0-9]|\(\?")
_IGNORED: Final = (
    "contains", "dependentRequired", "dependentSchemas", "else", "if", "maxContains", "maxProperties", "minContains",
    "minProperties", "multipleOf", "not", "patternProperties", "propertyNames", "then", "unevaluatedItems",
    "unevaluatedProperties", "uniqueItems",
)  # fmt: skip
_OF_WHOLE_NUMBERS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_FORMATS: Final = frozenset({"date", "time", "date-time", "uuid"})

Json = dict[str, Any]


def bounded(schema: Any) -> Any:
    """The schema with an end to every text and list that has none: a small model does not find it by itself."""
    if isinstance(schema, list):
        return [bounded(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: value if key in ("enum", "const", "default") else bounded(value) for key, value in schema.items()}
    if schema.get("type") == "string" and not {"enum", "const", "pattern", "format", "maxLength"} & schema.keys():
        out["maxLength"] = max(LONGEST_STRING, _least(schema.get("minLength")))
    if schema.get("type") == "array" and "maxItems" not in schema:
        out["maxItems"] = max(_MOST_ITEMS, _least(schema.get("minItems")))
    return out


def _least(number: Any) -> int:
    return number if type(number) is int else 0


def refuse_schema(param: str, schema: Json, *, strict: bool) -> None:
    """Refuse a schema that would keep the engine from everybody else. Raises `Problem` (400).

    `strict`: also one with a keyword that the engine does not hold to.
    """
    choices = optional = 0
    for item in _objects(
        schema, dict.values
    ):  # whatever it means there: what must not be seen is looked for everywhere
        lists = (item.get(key) for key in ("enum", "anyOf", "oneOf", "allOf"))
        choices += sum(len(found) for found in lists if isinstance(found, list))
        properties, required = item.get("properties"), item.get("required")
        if isinstance(properties, dict):
            needed = {name for name in required if isinstance(name, str)} if isinstance(required, list) else set()
            optional += len(properties.keys() - needed) ** 2
        pattern = item.get("pattern")
        if isinstance(pattern, str):
            choices += pattern.count("|")
            _refuse_pattern(param, pattern)
        _refuse_bounds(param, item)
    if choices > _MOST_CHOICES:
        raise unsupported(param, f"a JSON schema with more than {_MOST_CHOICES} alternatives")
    if optional > _MOST_OPTIONAL**2:
        raise unsupported(param, f"a JSON schema with more than {_MOST_OPTIONAL} optional properties")
    if strict:
        for item in _objects(schema, _schemas_of):
            _refuse_ignored(param, item)


def _objects(schema: Any, parts: Callable[[Json], Iterable[Any]]) -> Iterator[Json]:
    """Every object in it, as far as `parts` leads."""
    waiting: list[Any] = [schema]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
        elif isinstance(item, dict):
            waiting += parts(item)
            yield item


def _schemas_of(item: Json) -> Iterator[Any]:
    """What of an object may be a schema: not what maps names to schemas, nor what is a value."""
    for key, value in item.items():
        if key in ("properties", "$defs", "definitions") and isinstance(value, dict):
            yield from value.values()
        elif key not in ("enum", "const", "default", "examples"):
            yield value


def _refuse_pattern(param: str, pattern: str) -> None:
    if len(pattern) > _LONGEST_PATTERN or sum(map(pattern.count, "?*+{")) > _MOST_LOOSE:
        raise unsupported(param, "a pattern as long or as loose as this")
    plain = _CLASS.sub("", _ESCAPED.sub("", pattern))
    for times in _REPEATED.findall(plain):
        found = _TIMES.fullmatch(times)  # the engine reads "{5x,-2}" too
        if found is None or (found[1] and found[2] and int(found[1]) > int(found[2])):
            raise unsupported(param, "a pattern that repeats from more to fewer times, or how often is no number,")


def _refuse_bounds(param: str, item: Json) -> None:
    for lower, upper in _BOUNDS:
        least, most = item.get(lower), item.get(upper)
        if any(type(one) is int and one > _LARGEST for one in (least, most)):
            raise unsupported(param, f"a '{lower}' or '{upper}' of more than {_LARGEST}")
        if type(least) is int and type(most) is int and least > most:
            raise unsupported(param, f"a '{lower}' above its '{upper}'")


def _refuse_ignored(param: str, item: Json) -> None:
    ignored: list[str] = [key for key in _IGNORED if key in item]
    pattern, form = item.get("pattern"), item.get("format")
    if isinstance(pattern, str) and (not _HELD_TO.fullmatch(pattern) or _NOT_HELD_TO.search(pattern)):
        what = "'strict' with a 'pattern' that lacks ^ or $ at its ends, or has a class like \\d or a group like (?:"
        raise unsupported(param, what)
    if isinstance(form, str) and form not in _FORMATS:
        raise unsupported(param, f"'strict' with a 'format' other than {', '.join(sorted(_FORMATS))}")
    if item.get("type") == "number":
        ignored += [key for key in _OF_WHOLE_NUMBERS if key in item]
    if ignored:
        raise unsupported(param, f"'strict' with '{ignored[0]}'")


def unsupported(param: str, what: str) -> Problem:
    """400: this model cannot do that."""
    return Problem(400, Code.UNSUPPORTED_VALUE, f"'{param}' : {what} is not supported with this model", param=param)
