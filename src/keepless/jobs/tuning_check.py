"""Is this file a set of examples? Every line is looked at before anything is trained, in bounded memory.

Holds: `Rules`, `Checked`, `check_file`. Pure but for the stream it reads. Leaves out: what an example is
(tuning.dataset), rows (tuning), the file (files).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from keepless.content import Content, Purpose
from keepless.errors import Problem
from keepless.gateway.json_body import decode_object
from keepless.jobs.lines import Found, split
from keepless.tuning.dataset import check
from keepless.tuning.faults import MOST_FAULTS, Fault, FaultCode, FaultFile, FaultParam

__all__ = ["Checked", "Rules", "check_file"]

_GZIP, _ZIP, _UTF16 = b"\x1f\x8b", b"PK", (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class Rules:
    """What a file may be at most, and how many examples it must hold."""

    least: int
    most: int
    bytes: int
    example_bytes: int
    json_depth: int


@dataclass(slots=True)
class Checked:
    """What was found: how many examples, or what is wrong (`found` faults, of which the first are kept)."""

    file: FaultFile
    examples: int = 0
    faults: list[Fault] = field(default_factory=list)
    found: int = 0

    def wrong(self, line: int | None, code: FaultCode, param: FaultParam | None = None) -> None:
        """One more fault."""
        self.found += 1
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(Fault(self.file, line, code, param))


def check_file(file: FaultFile, pieces: Iterable[Content], size: int, rules: Rules) -> Checked:
    """Read a whole file of `size` bytes."""
    checked = Checked(file)
    if size > rules.bytes:
        checked.wrong(None, FaultCode.FILE_TOO_LARGE)
        return checked
    for line in split(pieces, rules.example_bytes, purpose=Purpose.TRAIN):
        if line.number == 1 and (whole := _not_text(line)) is not None:
            checked.wrong(None, whole)
            return checked
        if checked.examples == rules.most:
            checked.wrong(None, FaultCode.TOO_MANY_EXAMPLES)
            return checked
        checked.examples += 1
        wrong = _line(line, rules.json_depth)
        if wrong is not None:
            checked.wrong(line.number, *wrong)
    if not checked.examples:
        checked.wrong(None, FaultCode.EMPTY_FILE)
    elif checked.examples < rules.least:
        checked.wrong(None, FaultCode.TOO_FEW_EXAMPLES)
    return checked


def _not_text(first: Found) -> FaultCode | None:
    head = (first.data or b"")[:2]
    if head in (_GZIP, _ZIP):
        return FaultCode.COMPRESSED
    return FaultCode.INVALID_ENCODING if head in _UTF16 else None


def _line(line: Found, depth: int) -> tuple[FaultCode, FaultParam | None] | None:
    if line.data is None:
        return FaultCode.LINE_TOO_LONG, None
    try:
        example, _ = decode_object(line.data, depth)
    except Problem:
        return _encoding_of(line.data), None
    return check(example)


def _encoding_of(data: bytes) -> FaultCode:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return FaultCode.INVALID_ENCODING
    return FaultCode.INVALID_JSON
