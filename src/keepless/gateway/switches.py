"""Privacy switches that clients send with a request: ours and those of other vendors (DECISIONS 8).

Holds: THE TABLE of recognised switches (headers, and members of the body) and `from_headers`, `from_body`, which turn
what was sent into `RequestControls`. Leaves out: what the controls mean (policy).

A switch can only tighten. A value that would loosen is refused with 400, so is a value that nobody has defined, and so
is an unknown name in a family of ours or of a vendor: a privacy switch is never dropped in silence. Recognised members
are taken out of the body; no engine sees them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from keepless.errors import Code, Problem
from keepless.policy.controls import NO_REQUEST, RequestControls

__all__ = ["BODY", "HEADERS", "Effect", "combined", "from_body", "from_headers"]


class Effect(Enum):
    """What one value of a switch does."""

    NEUTRAL = "neutral"  # says what is true here anyway
    KEEP_NOTHING = "keep_nothing"  # binds us
    ZERO = "zero"  # binds us and the choice of the upstream
    LOOSEN = "loosen"  # refused


_N, _K, _Z, _L = Effect.NEUTRAL, Effect.KEEP_NOTHING, Effect.ZERO, Effect.LOOSEN
_CONTROLS: Final = {_N: NO_REQUEST, _K: RequestControls(keep_nothing=True), _Z: RequestControls(True, True)}
_ON_KEEPS_NOTHING: Final = {b"true": _K, b"false": _L}
_OFF_KEEPS_NOTHING: Final = {b"false": _K, b"true": _L}

# Header (lower case) -> value (lower case) -> effect. The vendor is named where the prefix does not.
HEADERS: Final[Mapping[bytes, Mapping[bytes, Effect]]] = {
    b"x-keepless-retention": {b"zero": _Z},
    b"cf-aig-zdr": {b"true": _Z, b"false": _L},
    b"cf-aig-collect-log": _OFF_KEEPS_NOTHING,
    b"cf-aig-collect-log-payload": _OFF_KEEPS_NOTHING,
    b"cf-aig-skip-cache": {b"true": _N, b"false": _N},  # there is no cache of answers here
    b"helicone-omit-request": _ON_KEEPS_NOTHING,
    b"helicone-omit-response": _ON_KEEPS_NOTHING,
    b"helicone-cache-enabled": {b"false": _N, b"true": _L},
    b"litellm-enable-message-redaction": _ON_KEEPS_NOTHING,
    b"x-litellm-enable-message-redaction": _ON_KEEPS_NOTHING,
    b"litellm-disable-message-redaction": _OFF_KEEPS_NOTHING,
    b"x-litellm-disable-message-redaction": _OFF_KEEPS_NOTHING,
    b"x-portkey-debug": _OFF_KEEPS_NOTHING,
}
# What nearly every request has: looked at no further.
_NO_SWITCHES: Final = frozenset(
    {
        b"host",
        b"authorization",
        b"content-type",
        b"content-length",
        b"accept",
        b"accept-encoding",
        b"user-agent",
        b"connection",
    }
)
_FAMILIES: Final = (b"x-keepless-", b"helicone-omit-", b"cf-aig-collect-", b"cf-aig-zdr")


@dataclass(frozen=True, slots=True)
class Member:
    """A switch in the body: where it stands and what each value does."""

    path: tuple[str, ...]
    values: Mapping[bool | str, Effect]

    @property
    def name(self) -> str:
        """As it is told to a client."""
        return ".".join(self.path)


BODY: Final = (
    Member(("store",), {False: _K, True: _L}),
    Member(("prompt_cache_retention",), {"in_memory": _N, "in-memory": _N, "24h": _L}),
    Member(("no-log",), {True: _K, False: _L}),  # LiteLLM
    Member(("provider", "zdr"), {True: _Z, False: _L}),  # OpenRouter
    Member(("provider", "data_collection"), {"deny": _Z, "allow": _L}),  # OpenRouter
    Member(("providerOptions", "gateway", "zeroDataRetention"), {True: _Z, False: _L}),  # Vercel AI Gateway
)
_TOP: Final = frozenset(member.path[0] for member in BODY)


def _tree() -> dict[str, Any]:
    root: dict[str, Any] = {}
    for member in BODY:
        node = root
        for step in member.path[:-1]:
            node = node.setdefault(step, {})
        node[member.path[-1]] = member
    return root


_TREE: Final = _tree()


def from_headers(headers: Iterable[tuple[bytes, bytes]]) -> RequestControls:
    """The controls that a request's headers (lower-case names) ask for. Raises `Problem` (400)."""
    asked = NO_REQUEST
    for name, value in headers:
        if name in _NO_SWITCHES:
            continue
        values = HEADERS.get(name)
        if values is not None:
            effect = values.get(value.strip().lower())
            asked = combined(asked, _controls(effect, name.decode("ascii")))
        elif name.startswith(_FAMILIES):
            raise _unknown("a privacy header")
    return asked


def from_body(body: dict[str, Any]) -> RequestControls:
    """The controls that members of the body ask for; takes those members out of `body`. Raises `Problem` (400)."""
    if _TOP.isdisjoint(body):
        return NO_REQUEST
    asked = NO_REQUEST
    for top in _TOP:
        if top in body:
            asked = combined(asked, _walk(body.pop(top), _TREE[top], top))
    return asked


def combined(one: RequestControls, other: RequestControls) -> RequestControls:
    """Both: the tighter of each."""
    if other is NO_REQUEST:
        return one
    return RequestControls(one.keep_nothing or other.keep_nothing, one.zero_upstream or other.zero_upstream)


def _walk(value: Any, node: Member | dict[str, Any], name: str) -> RequestControls:
    if value is None:
        return NO_REQUEST
    if isinstance(node, Member):
        # A bool is an int to Python (`1 == True`); only the very type counts.
        effect = node.values.get(value) if type(value) in (bool, str) else None
        return _controls(effect, name)
    if type(value) is not dict:
        raise Problem(400, Code.INVALID_TYPE, f"Invalid type for '{name}': expected an object.", param=name)
    asked = NO_REQUEST
    for key, inner in value.items():
        below = node.get(key)
        if below is None:
            raise _unknown(f"'{name}'", name)
        asked = combined(asked, _walk(inner, below, f"{name}.{key}"))
    return asked


def _controls(effect: Effect | None, name: str) -> RequestControls:
    if effect is None:
        raise Problem(400, Code.INVALID_VALUE, f"Invalid value for the privacy switch '{name}'.", param=name)
    if effect is Effect.LOOSEN:
        raise Problem(
            400,
            Code.LOOSENING_REFUSED,
            f"'{name}' would keep more than the data controls allow a request to ask for; a request can only tighten.",
            param=name,
        )
    return _CONTROLS[effect]


def _unknown(where: str, param: str | None = None) -> Problem:
    return Problem(
        400,
        Code.UNKNOWN_PARAMETER,
        f"Unrecognized switch in {where}: privacy switches that are not understood are refused, never ignored.",
        param=param,
    )
