"""What a client of the admin API sent, as typed values; or a `Problem` that names a parameter of ours, echoing nothing.

Holds: `body` (a JSON object into a struct) and `query` (a query string into a struct). Both convert field by field, so
that the refusal can name the field from our own table instead of quoting a library's text. Duplicate keys, NaN, lone
surrogates and unknown names are refused: a parameter that is ignored in silence would be a promise not kept.

Lists in a query string may be repeated (`ids=a&ids=b`), bracketed (`ids[]=a`) or joined by commas.
"""

import functools
import json
import operator
import types
import typing
from collections.abc import Sequence
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import parse_qsl

import msgspec

from keepless.errors import Code, Problem

__all__ = ["BODY_BYTES", "body", "query"]

BODY_BYTES: Final = 64 * 1024  # no admin call needs more
_PAIRS: Final = 200
_EXACT: Final = 2.0**53
T = TypeVar("T", bound=msgspec.Struct)


def body(raw: bytes, kind: type[T]) -> T:
    """One JSON object as a `kind`. An empty body is an empty object. Raises `Problem` 400."""
    fields = msgspec.structs.fields(kind)
    values = _object(raw) if raw.strip() else {}
    return _convert(values, kind, fields, strict=True)


def query(raw: bytes, kind: type[T]) -> T:
    """A query string as a `kind`. Raises `Problem` 400."""
    fields = msgspec.structs.fields(kind)
    lists = {f.encode_name for f in fields if _is_list(f.type)}
    values: dict[str, object] = {}
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_PAIRS)
    except (ValueError, UnicodeDecodeError):
        raise Problem(400, Code.INVALID_VALUE, "The query string is not valid.") from None
    for name, text in pairs:
        plain = name.removesuffix("[]")
        if plain in lists:
            present = values.setdefault(plain, [])
            if isinstance(present, list):
                present += text.split(",")
        elif plain in values:
            _refuse(_known(plain, fields), Code.INVALID_VALUE, "A query parameter is given twice.")
        else:
            values[name] = text
    return _convert(values, kind, fields, strict=False)


def _object(raw: bytes) -> dict[str, object]:
    try:
        value = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_number
        )
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # a lone surrogate is no text
    except (ValueError, RecursionError):
        raise Problem(400, Code.INVALID_JSON, "The body is not valid JSON.") from None
    if not isinstance(value, dict):
        raise Problem(400, Code.INVALID_JSON, "The body must be one JSON object.")
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a key is given twice")
    return dict(pairs)


def _number(text: str) -> int | float:
    """JSON knows one kind of number: 3.0 is the whole number 3."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < _EXACT else value


def _no_constant(_: str) -> NoReturn:
    raise ValueError("not a JSON number")


def _convert(
    values: dict[str, object], kind: type[T], fields: Sequence[msgspec.structs.FieldInfo], *, strict: bool
) -> T:
    if set(values) - {f.encode_name for f in fields}:
        names = ", ".join(f.encode_name for f in fields) or "none"
        _refuse(None, Code.UNKNOWN_PARAMETER, f"There is a parameter that is not known here. Known: {names}.")
    converted: dict[str, object] = {}
    for field in fields:
        if field.encode_name not in values:
            if field.required:
                _refuse(field.encode_name, Code.MISSING_PARAMETER, f"Missing required parameter: {field.encode_name}.")
            continue
        kind_ = field.type if strict else _given(field.type)
        try:
            converted[field.name] = msgspec.convert(values[field.encode_name], kind_, strict=strict)
        except (msgspec.ValidationError, ValueError, OverflowError):
            _refuse(field.encode_name, Code.INVALID_VALUE, f"Invalid value for {field.encode_name}: {_says(kind_)}.")
    return kind(**converted)


def _says(kind: Any) -> str:
    """What a field accepts, in words, from its declared type."""
    schema = msgspec.json.schema(kind)
    return _words(schema, schema.get("$defs", {}))


def _words(schema: dict[str, Any], named: dict[str, Any]) -> str:
    while "$ref" in schema:
        schema = named.get(schema["$ref"].rsplit("/", 1)[-1], {})
    if "anyOf" in schema:
        return " or ".join(_words(option, named) for option in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(str(value) for value in schema["enum"])
    if schema.get("type") == "array" and "items" in schema:
        return f"a list, each of it {_words(schema['items'], named)}"
    if "propertyNames" in schema:
        names = ", ".join(schema["propertyNames"]["enum"])
        return f"an object with {_words(schema['additionalProperties'], named)} for any of {names}"
    kind = {"string": "a text", "integer": "a whole number", "object": "an object", "null": "null"}.get(
        schema.get("type", ""), str(schema.get("type", "another type"))
    )
    bounds = [
        f"{word} {schema[name]}"
        for name, word in (("minimum", "from"), ("maximum", "to"), ("minLength", "from"), ("maxLength", "up to"))
        if name in schema
    ]
    unit = " letters" if "maxLength" in schema else ""
    says = f"{kind} {' '.join(bounds)}{unit}".strip()
    form = schema.get("description") if "pattern" in schema else None
    return says if form is None else f"{says} ({form})"


def _given(kind: Any) -> Any:
    """A type without null: a query string cannot say it (it would otherwise read the text `null` as nothing asked)."""
    if typing.get_origin(kind) not in (typing.Union, types.UnionType):
        return kind
    return functools.reduce(operator.or_, (one for one in typing.get_args(kind) if one is not types.NoneType))


def _is_list(kind: object) -> bool:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return any(_is_list(option) for option in typing.get_args(kind))
    return typing.get_origin(kind) is list


def _known(name: str, fields: Sequence[msgspec.structs.FieldInfo]) -> str | None:
    return next((f.encode_name for f in fields if f.encode_name == name), None)


def _refuse(param: str | None, code: Code, message: str) -> NoReturn:
    raise Problem(400, code, message, param=param)
