"""Is this file a batch? Every line is looked at before one is run.

Holds: `Rules`, `validate` and `Verdict`. Pure but for the stream it reads. Leaves out: rows (batches), the file
(files), what a body's other parameters mean (the endpoint tells each line when it is run).

Custom ids are compared by a keyed digest: uniqueness of fifty thousand costs a few megabytes, and nothing of them
stays. What is told of a line is a closed code and its number.
"""

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from keepless.batches.shards import ShardPlan
from keepless.batches.values import MOST_LINE_ERRORS, BatchEndpoint, LineCode, LineError, LineParam
from keepless.content import Content
from keepless.errors import Problem
from keepless.gateway.json_body import decode_object
from keepless.jobs.lines import Found, split

__all__ = ["ModelCheck", "Rules", "Verdict", "urls_of", "validate"]

_LONGEST_ID: Final = 512  # characters
_MEMBERS: Final = frozenset({"custom_id", "method", "url", "body"})
_AUDIO: Final = frozenset({BatchEndpoint.TRANSCRIPTIONS, BatchEndpoint.TRANSLATIONS})
_GZIP, _UTF16 = b"\x1f\x8b", (b"\xff\xfe", b"\xfe\xff")
_SHARDS: Final = 20  # about so many, so that several workers can share a batch
_SHORTEST, _LONGEST = 50, 2500  # lines of a shard
_SHARD_BYTES: Final = 8 * 1024 * 1024

ModelCheck = Callable[[str, BatchEndpoint], LineCode | None]


@dataclass(frozen=True, slots=True)
class Rules:
    """What an input must be. `model`: what is wrong with a model for an endpoint; None = nothing."""

    endpoint: BatchEndpoint
    model: ModelCheck
    most_lines: int
    most_bytes: int
    line_bytes: int
    json_depth: int


@dataclass(slots=True)
class Verdict:
    """What was found: the shards of a good input, or what is wrong (`found` errors, of which the first are kept).

    `model`: the one that all lines of a good input ask for; None: several.
    """

    lines: int = 0
    model: str | None = None
    shards: list[ShardPlan] = field(default_factory=list)
    errors: list[LineError] = field(default_factory=list)
    found: int = 0

    def wrong(self, line: int | None, code: LineCode, param: LineParam | None = None) -> None:
        """One more error."""
        self.found += 1
        if len(self.errors) < MOST_LINE_ERRORS:
            self.errors.append(LineError(line, code, param))


def urls_of(endpoint: BatchEndpoint) -> dict[str, BatchEndpoint]:
    """The urls that lines of a batch may have, with what each calls: audio lines may be mixed, as Groq has it."""
    endpoints = _AUDIO if endpoint in _AUDIO else {endpoint}
    return {prefix + each.value: each for each in endpoints for prefix in ("", "/openai")}


def validate(pieces: Iterable[Content], size: int, rules: Rules) -> Verdict:
    """Read the whole input of `size` bytes."""
    verdict = Verdict()
    if size > rules.most_bytes:
        verdict.wrong(None, LineCode.FILE_TOO_LARGE)
        return verdict
    checker = _Checker(rules)
    places: list[tuple[int, int]] = []
    for line in split(pieces, rules.line_bytes):
        if line.number == 1 and (whole := _not_text(line)) is not None:
            verdict.wrong(None, whole)
            return verdict
        if verdict.lines == rules.most_lines:
            verdict.wrong(None, LineCode.TOO_MANY_LINES)
            return verdict
        verdict.lines += 1
        places.append((line.start, line.stop))
        wrong = checker.check(line)
        if wrong is not None:
            verdict.wrong(line.number, *wrong)
    if not places:
        verdict.wrong(None, LineCode.EMPTY_FILE)
    elif not verdict.found:
        verdict.shards = _shards(places)
        verdict.model = next(iter(checker.models)) if len(checker.models) == 1 else None
    return verdict


def _not_text(first: Found) -> LineCode | None:
    head = (first.data or b"")[:2]
    if head == _GZIP:
        return LineCode.COMPRESSED
    return LineCode.INVALID_ENCODING if head in _UTF16 else None


def _shards(places: list[tuple[int, int]]) -> list[ShardPlan]:
    """Parts of about the same number of lines, and of a bounded number of bytes."""
    most = min(max(-(-len(places) // _SHARDS), _SHORTEST), _LONGEST)
    shards: list[ShardPlan] = []
    first = 0
    for at, (_, stop) in enumerate(places):
        start, lines = places[first][0], at + 1 - first
        last = at + 1 == len(places)
        if lines == most or last or places[at + 1][1] - start > _SHARD_BYTES:
            shards.append(ShardPlan(first + 1, lines, start, stop))
            first = at + 1
    return shards


class _Checker:
    def __init__(self, rules: Rules) -> None:
        self._rules: Final = rules
        self._urls: Final = urls_of(rules.endpoint)
        self._key: Final = os.urandom(32)
        self._seen: Final[set[bytes]] = set()
        self.models: Final[set[str]] = set()  # at most two

    def check(self, line: Found) -> tuple[LineCode, LineParam | None] | None:
        if line.data is None:
            return LineCode.LINE_TOO_LONG, None
        try:
            value, _ = decode_object(line.data, self._rules.json_depth)
        except Problem:
            return _encoding_of(line.data), None
        return self._envelope(value) or self._body(value)

    def _envelope(self, value: dict[str, Any]) -> tuple[LineCode, LineParam | None] | None:
        for name in ("custom_id", "method", "url"):
            given = value.get(name)
            if given is None:
                return LineCode.MISSING, LineParam(name)
            if type(given) is not str:
                return LineCode.INVALID_TYPE, LineParam(name)
        custom_id = value["custom_id"]
        if not 0 < len(custom_id) <= _LONGEST_ID:
            return LineCode.INVALID_VALUE, LineParam.CUSTOM_ID
        digest = hashlib.blake2b(custom_id.encode("utf-8", "surrogatepass"), digest_size=16, key=self._key).digest()
        if digest in self._seen:
            return LineCode.DUPLICATE_ID, LineParam.CUSTOM_ID
        self._seen.add(digest)
        if value["method"] != "POST":
            return LineCode.INVALID_METHOD, LineParam.METHOD
        if value["url"] not in self._urls:
            return LineCode.URL_MISMATCH, LineParam.URL
        return None

    def _body(self, value: dict[str, Any]) -> tuple[LineCode, LineParam | None] | None:
        body = value.get("body")
        if body is None:
            return LineCode.MISSING, LineParam.BODY
        if type(body) is not dict:
            return LineCode.INVALID_TYPE, LineParam.BODY
        if not value.keys() <= _MEMBERS:
            return LineCode.UNKNOWN_PARAMETER, None
        if body.get("stream") is True:
            return LineCode.STREAM_NOT_ALLOWED, LineParam.STREAM
        model = body.get("model")
        if model is None:
            return LineCode.MISSING, LineParam.MODEL
        if type(model) is not str:
            return LineCode.INVALID_TYPE, LineParam.MODEL
        code = self._rules.model(model, self._urls[value["url"]])
        if code is not None:
            return code, LineParam.MODEL
        if len(self.models) < 2:
            self.models.add(model)
        return None


def _encoding_of(data: bytes) -> LineCode:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return LineCode.INVALID_ENCODING
    return LineCode.INVALID_JSON
