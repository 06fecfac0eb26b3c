"""The oracle of the fence tests: what was observed when, and what must not be among it.

A toggle is *closed* from the instant its call has answered until the call that opens it again begins. An act (an
acceptance, a route, a commit) that began and ended within one closed span and found the thing open is a violation.
Instants are of CLOCK_MONOTONIC, one clock for all processes of a machine. Commits are judged by the catalogue as
well: while closed, the set of committed objects must not grow at all, whenever the act began.
"""

import threading
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field

__all__ = ["Act", "Closed", "Verdict", "judge"]


@dataclass(frozen=True, order=True)
class Act:
    """Something done: from when to when, what, about which subject, and whether it found the subject open."""

    began: float
    ended: float
    kind: str
    subject: str
    found_open: bool


@dataclass
class Closed:
    """When each subject was closed: spans of (answered, opened again or infinity)."""

    spans: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def close(self, subject: str, answered: float) -> None:
        with self.lock:
            self.spans.setdefault(subject, []).append((answered, float("inf")))

    def open(self, subject: str, began: float) -> None:
        with self.lock:
            spans = self.spans.get(subject)
            if spans and spans[-1][1] == float("inf"):
                spans[-1] = (spans[-1][0], began)

    def during(self, subject: str, began: float, ended: float) -> bool:
        """Whether the subject was closed for the whole of an act."""
        spans = self.spans.get(subject, [])
        at = bisect_right(spans, (began, float("inf"))) - 1
        return at >= 0 and spans[at][0] < began and ended < spans[at][1]


@dataclass(frozen=True)
class Verdict:
    """What the oracle found; `judged` counts acts by kind and outcome: a test must see that it tested something."""

    violations: list[Act]
    judged: Counter[tuple[str, str]]


def judge(acts: list[Act], closed: Closed) -> Verdict:
    """Hold every act against the closed spans of its subject."""
    violations, judged = [], Counter[tuple[str, str]]()
    for act in acts:
        inside = closed.during(act.subject, act.began, act.ended)
        judged[act.kind, "open" if act.found_open else "closed"] += 1
        judged[act.kind, "judged"] += inside
        if inside and act.found_open:
            violations.append(act)
    return Verdict(violations, judged)
