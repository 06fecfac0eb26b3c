"""What counts as wrong, line by line: the answer, what is listed, and what the schedule allows."""

import pytest

from keepless.policy.decision import Reason
from keepless.prover.cases import SETTINGS, Case
from keepless.prover.check import told, wrong
from keepless.prover.wire import Answer, Request

ID = "obj_" + "a" * 24
KEPT = f"class=reliability_log; object={ID}; epoch=1; expires=2026-12-22T23:55:41Z"
COMMENT = f"data: x\n\n: x-keepless-retention {KEPT}\n\ndata: [DONE]\n\n".encode()
DEFAULT, OPT_OUT, ZDR = SETTINGS


def case(*statuses: int, reason: Reason | None = None, streamed: bool = False, forbids: bool = False) -> Case:
    return Case("a case", lambda _: Request("/", b""), frozenset(statuses), reason, streamed, forbids)


FAILED = case(502, reason=Reason.UPSTREAM_5XX)
CUT = case(200, reason=Reason.UPSTREAM_CUT, streamed=True)
FIVE, CUTS = {ID: "upstream_5xx"}, {ID: "upstream_cut"}

RIGHT = {
    "an answer": (case(200), DEFAULT, Answer(200, "none"), {}),
    "an answer of an upstream that keeps": (case(200), DEFAULT, Answer(200, "none; upstream=logs_30d"), {}),
    "a stream": (case(200, streamed=True), DEFAULT, Answer(200, "on-error"), {}),
    "a stream under zero data retention": (case(200, streamed=True), ZDR, Answer(200, "none"), {}),
    "a stream that forbids": (case(200, streamed=True, forbids=True), DEFAULT, Answer(200, "none"), {}),
    "a captured failure": (FAILED, DEFAULT, Answer(502, KEPT), FIVE),
    "a captured failure, upstream unknown": (FAILED, DEFAULT, Answer(502, KEPT + "; upstream=unknown"), FIVE),
    "a captured stream": (CUT, DEFAULT, Answer(200, "on-error", COMMENT), CUTS),
    "a failure after opting out": (FAILED, OPT_OUT, Answer(502, "none"), {}),
    "a cut stream under zero data retention": (CUT, ZDR, Answer(200, "none", b"data: x\n\n"), {}),
    "nothing came back": (case(0), DEFAULT, Answer(), {}),
    "anything from somebody else's model": (case(), DEFAULT, Answer(502, KEPT), FIVE),
}

WRONG = {
    "another status": (case(200), DEFAULT, Answer(500, "none"), {}, "the status is not what it should be"),
    "no header": (case(200), DEFAULT, Answer(200, ""), {}, "the retention header is not true"),
    "a stream that says none": (case(200, streamed=True), DEFAULT, Answer(200, "none"), {}, "the retention header"),
    "a stream that says on-error": (case(200, streamed=True), ZDR, Answer(200, "on-error"), {}, "the retention header"),
    "an answer that says on-error": (case(200), DEFAULT, Answer(200, "on-error"), {}, "the retention header"),
    "kept under zero data retention": (FAILED, ZDR, Answer(502, KEPT), FIVE, "something was kept that may not be"),
    "kept after opting out": (FAILED, OPT_OUT, Answer(502, KEPT), FIVE, "something was kept that may not be"),
    "kept though the request forbids": (
        case(502, reason=Reason.UPSTREAM_5XX, forbids=True),
        DEFAULT,
        Answer(502, KEPT),
        FIVE,
        "something was kept that may not be",
    ),
    "kept and not said": (FAILED, DEFAULT, Answer(502, "none"), FIVE, "what the answer says is kept"),
    "said and not kept": (FAILED, DEFAULT, Answer(502, KEPT), {}, "what the answer says is kept"),
    "said under zero data retention": (FAILED, ZDR, Answer(502, KEPT), {}, "what the answer says is kept"),
    "another object": (FAILED, DEFAULT, Answer(502, KEPT), {"obj_b": "upstream_5xx"}, "what the answer says is kept"),
    "one more": (FAILED, DEFAULT, Answer(502, KEPT), FIVE | {"obj_b": "upstream_5xx"}, "what the answer says is kept"),
    "another reason": (FAILED, DEFAULT, Answer(502, KEPT), CUTS, "what is kept is not what the schedule says"),
    "not kept though it says it would": (FAILED, DEFAULT, Answer(502, "none"), {}, "what is kept is not what"),
    "a success kept": (case(200), DEFAULT, Answer(200, KEPT), FIVE, "what is kept is not what the schedule says"),
    "somebody else's, kept under zero data retention": (case(), ZDR, Answer(502, KEPT), FIVE, "something was kept"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right(name: str) -> None:
    assert wrong(*RIGHT[name]) == ""


@pytest.mark.parametrize("name", WRONG)
def test_wrong(name: str) -> None:
    *arguments, said = WRONG[name]
    assert wrong(*arguments).startswith(said)


def test_told_is_the_object_named_last() -> None:
    assert told(Answer(200, "on-error", COMMENT)) == ID
    assert told(Answer(502, KEPT)) == ID
    assert told(Answer(200, "none", b"data: x\n\n")) is None
    assert told(Answer(200, "class=reliability_log; object=; epoch=1; expires=never")) is None
