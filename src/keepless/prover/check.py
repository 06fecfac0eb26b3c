"""Whether what came back, and what is listed as kept, is what policy promises. Pure: values in, fixed words out.

Holds: `told`, `told_of`, `wrong`. Leaves out: asking (run).
"""

import re
from collections.abc import Mapping
from typing import Final

from keepless.prover.cases import Case, Setting
from keepless.prover.wire import Answer

__all__ = ["told", "told_of", "wrong"]

_KEPT: Final = re.compile(r"class=reliability_log; object=(obj_[a-z2-7]+); epoch=\d+; expires=[0-9TZ:-]+\Z")
_OF_CLASS: Final = re.compile(r"class=([a-z_]+); object=(obj_[a-z2-7]+); epoch=\d+; expires=(?:never|[0-9TZ:-]+)\Z")


def told(answer: Answer) -> str | None:
    """The id of the object that an answer says is kept."""
    for said in (answer.said_at_last, answer.retention):
        found = _KEPT.match(_without_upstream(said))
        if found:
            return found[1]
    return None


def told_of(answer: Answer, data_class: str) -> str | None:
    """The id of the object of a class that the head of an answer says is kept."""
    found = _OF_CLASS.match(answer.retention)
    return found[2] if found and found[1] == data_class else None


def _without_upstream(said: str) -> str:
    """What it says about us, without what it says about the upstream."""
    return said.partition("; upstream=")[0]


def wrong(case: Case, setting: Setting, answer: Answer, kept: Mapping[str, str]) -> str:
    """What is not as promised; empty = nothing. `kept`: what is listed since the request, id -> reason."""
    permitted = setting.captures and not case.forbids
    if case.statuses and answer.status not in case.statuses:
        return "the status is not what it should be"
    if kept and not permitted:
        return "something was kept that may not be"
    if set(kept) != ({told(answer)} - {None}):
        return "what the answer says is kept is not what is listed"
    if not case.statuses:
        return _header(case, answer, permitted=permitted) if answer.status else ""
    reasons = [case.reason] if case.reason is not None and permitted else []
    if list(kept.values()) != reasons:
        return "what is kept is not what the schedule says"
    return _header(case, answer, permitted=permitted) if answer.status else ""


def _header(case: Case, answer: Answer, *, permitted: bool) -> str:
    said = _without_upstream(answer.retention)
    if case.streamed and answer.status == 200:
        right = said == ("on-error" if permitted else "none")
    else:
        right = said == "none" or (permitted and _KEPT.match(said) is not None)
    return "" if right else "the retention header is not true"
