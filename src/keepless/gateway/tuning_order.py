"""What a client asks of fine-tunings, checked: a new one in OpenAI's or in Groq's words, a page of a list.

Holds: `order_of_job` (OpenAI's body), `order_of_tuning` (Groq's), `page_of` (the query of a list). Leaves out: what the
named files are (the book), privacy switches (`switches`; a fine-tuning must keep something, so any that tightens is a
conflict).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from keepless.content import Content
from keepless.errors import Code, Problem
from keepless.ids import Id, Prefix, parse
from keepless.tuning.book import Order
from keepless.tuning.names import DEFAULT_NAME, LONGEST_NAME, good_name
from keepless.tuning.values import RANKS, Hyperparameters

__all__ = ["Listed", "order_of_job", "order_of_tuning", "page_of"]

_JOB: Final = frozenset(
    {
        *("model", "training_file", "validation_file", "suffix", "seed", "metadata"),
        *("hyperparameters", "method", "integrations"),
    }
)
_TUNING: Final = frozenset({"base_model", "name", "type", "input_file_id", "hyperparameters", "seed"})
_KNOBS: Final = frozenset({"n_epochs", "batch_size", "learning_rate_multiplier", "r", "alpha"})
_PAIRS, _KEY, _VALUE = 16, 64, 512
_SEED: Final = 2**32
_MOST: Final = 100
_MOST_ALPHA: Final = 1024


@dataclass(frozen=True, slots=True)
class Listed:
    """A page that is asked for. `after` None = from the newest."""

    limit: int = 20
    after: Id | None = None
    nothing: bool = False  # what it should follow cannot be there
    stream: bool = False


def order_of_job(body: Mapping[str, Any]) -> Order:
    """OpenAI's creation. Raises `Problem` 400 that names a parameter of ours and echoes nothing."""
    _known(body, _JOB)
    if body.get("integrations"):
        raise Problem(
            400,
            Code.UNSUPPORTED_PARAMETER,
            "integrations would tell another company of this training; they are not served.",
            param="integrations",
        )
    validation = None if body.get("validation_file") is None else _text(body, "validation_file")
    name = DEFAULT_NAME if body.get("suffix") in (None, "") else _name(body, "suffix")
    return Order(
        base_model=_text(body, "model"),
        training_file_id=parse(_text(body, "training_file"), Prefix.FILE),
        name=Content(name.encode()),
        metadata=_metadata(body.get("metadata")),
        validation_file_id=None if validation is None else parse(validation, Prefix.FILE),
        has_validation=validation is not None,
        asked=_asked(body),
        seed=_seed(body.get("seed")),
    )


def order_of_tuning(body: Mapping[str, Any]) -> Order:
    """Groq's creation. Raises as `order_of_job`."""
    _known(body, _TUNING)
    kind = _text(body, "type")
    if kind != "lora":
        raise _invalid("type", "it must be lora")
    return Order(
        base_model=_text(body, "base_model"),
        training_file_id=parse(_text(body, "input_file_id"), Prefix.FILE),
        name=Content(_name(body, "name").encode()),
        asked=_knobs(body.get("hyperparameters"), "hyperparameters"),
        seed=_seed(body.get("seed")),
        may_import=True,
        base_param="base_model",
        file_param="input_file_id",
    )


def page_of(query: bytes, prefix: Prefix, *, streams: bool = False) -> Listed:
    """OpenAI's `after` and `limit`, Groq's `cursor`; where there is one, `stream`. Raises `Problem` 400."""
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=20)
    except (ValueError, UnicodeDecodeError):
        raise Problem(400, Code.INVALID_VALUE, "The query string is not valid.") from None
    single: dict[str, str] = {}
    for name, text in pairs:
        if name == "metadata" or name.startswith("metadata["):
            raise Problem(
                400,
                Code.UNSUPPORTED_PARAMETER,
                "metadata is kept encrypted and cannot be searched: list all, and choose from the answers.",
                param="metadata",
            )
        if name not in ("limit", "after", "cursor", *(("stream",) if streams else ())) or name in single:
            raise Problem(400, Code.UNKNOWN_PARAMETER, "Known here, once each: after, limit, cursor.")
        single[name] = text
    follows = single.get("after") or single.get("cursor") or None
    after = None if follows is None else parse(follows, prefix)
    return Listed(
        limit=_limit(single.get("limit")),
        after=after,
        nothing=follows is not None and after is None,
        stream=_truth(single.get("stream")),
    )


def _asked(body: Mapping[str, Any]) -> Hyperparameters:
    """Hyperparameters where OpenAI had them first, or within the method; not in both places."""
    method = body.get("method")
    old = body.get("hyperparameters")
    if method is None:
        return _knobs(old, "hyperparameters")
    if type(method) is not dict or not method.keys() <= {"type", "supervised", "dpo", "reinforcement"}:
        raise _invalid("method", "an object with a type")
    if method.get("type") != "supervised" or method.get("dpo") or method.get("reinforcement"):
        raise Problem(
            400, Code.UNSUPPORTED_VALUE, "The method that is served is supervised.", param="method.type", retry=False
        )
    own = method.get("supervised")
    if own is not None and (type(own) is not dict or not own.keys() <= {"hyperparameters"}):
        raise _invalid("method.supervised", "an object with hyperparameters")
    new = None if own is None else own.get("hyperparameters")
    if new and old:
        raise _invalid("hyperparameters", "they stand in method.supervised or here, not in both")
    return _knobs(new, "method.supervised.hyperparameters") if new else _knobs(old, "hyperparameters")


def _knobs(value: object, param: str) -> Hyperparameters:
    if value is None:
        return Hyperparameters()
    if type(value) is not dict:
        raise _invalid(param, "an object")
    if not value.keys() <= _KNOBS:
        known = ", ".join(sorted(_KNOBS))
        raise Problem(400, Code.UNKNOWN_PARAMETER, f"Known in {param}: {known}.", param=param)
    rank = _whole(value, "r", param, range(1, 65)) or 16
    if rank not in RANKS:
        raise _invalid(f"{param}.r", f"one of {', '.join(str(one) for one in RANKS)}")
    return Hyperparameters(
        n_epochs=_whole(value, "n_epochs", param, range(1, 51)),
        batch_size=_whole(value, "batch_size", param, range(1, 257)),
        learning_rate_multiplier=_multiplier(value, param),
        r=rank,
        alpha=_whole(value, "alpha", param, range(1, _MOST_ALPHA + 1)) or 2 * rank,
    )


def _whole(value: Mapping[str, Any], name: str, param: str, allowed: range) -> int | None:
    given = value.get(name)
    if given is None or given == "auto":
        return None
    if type(given) is not int or given not in allowed:
        raise _invalid(f"{param}.{name}", f"auto, or a whole number from {allowed.start} to {allowed.stop - 1}")
    return given


def _multiplier(value: Mapping[str, Any], param: str) -> float | None:
    given = value.get("learning_rate_multiplier")
    if given is None or given == "auto":
        return None
    if type(given) not in (int, float) or not math.isfinite(given) or not 0 < given <= 100:
        raise _invalid(f"{param}.learning_rate_multiplier", "auto, or a number above 0 and up to 100")
    return float(given)


def _seed(value: object) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 0 <= value < _SEED:
        raise _invalid("seed", f"a whole number from 0 to {_SEED - 1}")
    return value


def _metadata(value: object) -> Content | None:
    if value is None or value == {}:
        return None
    if type(value) is not dict or len(value) > _PAIRS:
        raise _invalid("metadata", f"at most {_PAIRS} pairs of texts")
    for key, text in value.items():
        if type(text) is not str or len(key) > _KEY or len(text) > _VALUE:
            raise _invalid("metadata", f"keys are texts of at most {_KEY} letters, values of at most {_VALUE}")
    return Content(msgspec.json.encode(value))


def _name(body: Mapping[str, Any], name: str) -> str:
    text = _text(body, name)
    if not good_name(text):
        says = f"1 to {LONGEST_NAME} of the letters A-Z, a-z, 0-9, and within it also . _ -"
        raise _invalid(name, says)
    return text


def _known(body: Mapping[str, Any], names: frozenset[str]) -> None:
    if not body.keys() <= names:
        known = ", ".join(sorted(names))
        raise Problem(400, Code.UNKNOWN_PARAMETER, f"There is a parameter that is not known here. Known: {known}.")


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if value is None:
        raise Problem(400, Code.MISSING_PARAMETER, f"Missing required parameter: {name}.", param=name)
    if type(value) is not str:
        raise Problem(400, Code.INVALID_TYPE, f"Invalid type for {name}: expected a text.", param=name)
    return value


def _limit(text: str | None) -> int:
    if text is None:
        return 20
    if not re.fullmatch(r"[1-9][0-9]{0,2}", text, re.ASCII) or int(text) > _MOST:
        raise _invalid("limit", f"a whole number from 1 to {_MOST}")
    return int(text)


def _truth(text: str | None) -> bool:
    if text not in (None, "", "true", "false", "True", "False", "1", "0"):
        raise _invalid("stream", "true or false")
    return text in ("true", "True", "1")


def _invalid(name: str, says: str) -> Problem:
    return Problem(400, Code.INVALID_VALUE, f"Invalid value for {name}: {says}.", param=name)
