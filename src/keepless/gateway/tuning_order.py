"""What a client asks of fine-tunings, checked: a new one in OpenAI's or in Groq's words, a page of a list.

Holds: `order_of_job` (OpenAI's body), `order_of_tuning` (Groq's), `page_of` (the query of a list). Leaves out: what the
named files are (the book), privacy switches (`switches`; a fine-tuning must keep something, so any that tightens is a
conflict).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from keepless.content import Content
from keepless.errors import Code, Problem
from keepless.gateway.orders import invalid, known, limit_of, metadata_of, pairs_of, text_of
from keepless.ids import Id, Prefix, parse
from keepless.tuning.book import Order
from keepless.tuning.names import DEFAULT_NAME, LONGEST_NAME, good_name
from keepless.tuning.shown import Metadata
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
_SEED: Final = 2**32
_MOST_ALPHA: Final = 1024


@dataclass(frozen=True, slots=True)
class Listed:
    """A page that is asked for. `after` None = from the newest."""

    limit: int = 20
    after: Id | None = None
    nothing: bool = False  # what it should follow cannot be there
    stream: bool = False
    metadata: Metadata | None = None


def order_of_job(body: Mapping[str, Any]) -> Order:
    """OpenAI's creation. Raises `Problem` 400 that names a parameter of ours and echoes nothing."""
    known(body, _JOB)
    if body.get("integrations"):
        raise Problem(
            400,
            Code.UNSUPPORTED_PARAMETER,
            "integrations would tell another company of this training; they are not served.",
            param="integrations",
        )
    validation = None if body.get("validation_file") is None else text_of(body, "validation_file")
    name = DEFAULT_NAME if body.get("suffix") in (None, "") else _name(body, "suffix")
    return Order(
        base_model=text_of(body, "model"),
        training_file_id=parse(text_of(body, "training_file"), Prefix.FILE),
        name=Content(name.encode()),
        metadata=metadata_of(body.get("metadata")),
        validation_file_id=None if validation is None else parse(validation, Prefix.FILE),
        has_validation=validation is not None,
        asked=_asked(body),
        seed=_seed(body.get("seed")),
    )


def order_of_tuning(body: Mapping[str, Any]) -> Order:
    """Groq's creation. Raises as `order_of_job`."""
    known(body, _TUNING)
    kind = text_of(body, "type")
    if kind != "lora":
        raise invalid("type", "it must be lora")
    return Order(
        base_model=text_of(body, "base_model"),
        training_file_id=parse(text_of(body, "input_file_id"), Prefix.FILE),
        name=Content(_name(body, "name").encode()),
        asked=_knobs(body.get("hyperparameters"), "hyperparameters"),
        seed=_seed(body.get("seed")),
        may_import=True,
        base_param="base_model",
        file_param="input_file_id",
    )


def page_of(query: bytes, prefix: Prefix, *, streams: bool = False, searches: bool = False) -> Listed:
    """OpenAI's `after` and `limit`, Groq's `cursor`; where they are, `stream` and `metadata`. Raises `Problem` 400."""
    names = {"limit", "after", "cursor", *(("stream",) if streams else ()), *(("metadata",) if searches else ())}
    single: dict[str, str] = {}
    wanted: dict[str, str] = {}
    for name, text in pairs_of(query, 30):
        key = name[len("metadata[") : -1] if searches and name.startswith("metadata[") and name[-1] == "]" else None
        told, into = (name, single) if key is None else (key, wanted)
        if told in into or (key is None and name not in names):
            raise Problem(400, Code.UNKNOWN_PARAMETER, f"Known here, once each: {', '.join(sorted(names))}.")
        into[told] = text
    follows = single.get("after") or single.get("cursor") or None
    after = None if follows is None else parse(follows, prefix)
    return Listed(
        limit=limit_of(single.get("limit")),
        after=after,
        nothing=follows is not None and after is None,
        stream=_truth(single.get("stream")),
        metadata=_searched(single.get("metadata"), wanted),
    )


def _searched(null: str | None, wanted: Mapping[str, str]) -> Metadata | None:
    """OpenAI's filter: `metadata[key]=value`, each of them, or `metadata=null`."""
    if null is not None and (null not in ("null", "") or wanted):
        raise invalid("metadata", "metadata[key]=value, or metadata=null")
    if null == "null":
        return Metadata(None)
    pairs = metadata_of(dict(wanted))
    return None if pairs is None else Metadata(pairs)


def _asked(body: Mapping[str, Any]) -> Hyperparameters:
    """Hyperparameters where OpenAI had them first, or within the method; not in both places."""
    method = body.get("method")
    old = body.get("hyperparameters")
    if method is None:
        return _knobs(old, "hyperparameters")
    if type(method) is not dict or not method.keys() <= {"type", "supervised", "dpo", "reinforcement"}:
        raise invalid("method", "an object with a type")
    if method.get("type") != "supervised" or method.get("dpo") or method.get("reinforcement"):
        raise Problem(
            400, Code.UNSUPPORTED_VALUE, "The method that is served is supervised.", param="method.type", retry=False
        )
    own = method.get("supervised")
    if own is not None and (type(own) is not dict or not own.keys() <= {"hyperparameters"}):
        raise invalid("method.supervised", "an object with hyperparameters")
    new = None if own is None else own.get("hyperparameters")
    if new and old:
        raise invalid("hyperparameters", "they stand in method.supervised or here, not in both")
    return _knobs(new, "method.supervised.hyperparameters") if new else _knobs(old, "hyperparameters")


def _knobs(value: object, param: str) -> Hyperparameters:
    if value is None:
        return Hyperparameters()
    if type(value) is not dict:
        raise invalid(param, "an object")
    if not value.keys() <= _KNOBS:
        known = ", ".join(sorted(_KNOBS))
        raise Problem(400, Code.UNKNOWN_PARAMETER, f"Known in {param}: {known}.", param=param)
    rank = _whole(value, "r", param, range(1, 65)) or 16
    if rank not in RANKS:
        raise invalid(f"{param}.r", f"one of {', '.join(str(one) for one in RANKS)}")
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
        raise invalid(f"{param}.{name}", f"auto, or a whole number from {allowed.start} to {allowed.stop - 1}")
    return given


def _multiplier(value: Mapping[str, Any], param: str) -> float | None:
    given = value.get("learning_rate_multiplier")
    if given is None or given == "auto":
        return None
    if type(given) not in (int, float) or not 0 < given <= 100:
        raise invalid(f"{param}.learning_rate_multiplier", "auto, or a number above 0 and up to 100")
    return float(given)


def _seed(value: object) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 0 <= value < _SEED:
        raise invalid("seed", f"a whole number from 0 to {_SEED - 1}")
    return value


def _name(body: Mapping[str, Any], name: str) -> str:
    text = text_of(body, name)
    if not good_name(text):
        says = f"1 to {LONGEST_NAME} of the letters A-Z, a-z, 0-9, and within it also . _ -"
        raise invalid(name, says)
    return text


def _truth(text: str | None) -> bool:
    if text not in (None, "", "true", "false", "True", "False", "1", "0"):
        raise invalid("stream", "true or false")
    return text in ("true", "True", "1")
