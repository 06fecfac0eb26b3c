"""Batches as values: states and how they follow, endpoints, what can be wrong with a line, counts.

Holds: `BatchState` with `NEXT` (the state machine), `BatchEndpoint`, `CancelReason`, `LineCode` and `LineParam` with
their texts, `Counts`, `LineError`, `NewBatch`, `Batch`. Pure. Leaves out: rows (tables, store), who changes them
(transitions), the lines themselves, which are content and exist in the vault and in a worker's memory only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, NamedTuple

from keepless.ids import Id

__all__ = [
    "ACTIVE",
    "MOST_LINE_ERRORS",
    "NEXT",
    "TERMINAL",
    "TEXT_OF",
    "Batch",
    "BatchEndpoint",
    "BatchState",
    "CancelReason",
    "Counts",
    "LineCode",
    "LineError",
    "LineParam",
    "NewBatch",
    "Usage",
]

MOST_LINE_ERRORS: Final = 100  # kept of one batch; the others are counted


class BatchState(StrEnum):
    """OpenAI's `status`."""

    VALIDATING = "validating"
    FAILED = "failed"  # the input is not a batch; nothing was run
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"  # no line is run any more; the result files are being made
    COMPLETED = "completed"
    EXPIRED = "expired"  # the completion window ended first
    CANCELLING = "cancelling"  # lines in flight end, the results so far are being made
    CANCELLED = "cancelled"


_S: Final = BatchState

NEXT: Final[Mapping[BatchState, frozenset[BatchState]]] = {
    # `cancelled` at once from everywhere: the policy does not allow the feature any more, nothing is delivered.
    # `expired` from `validating`: no worker came in time.
    _S.VALIDATING: frozenset({_S.FAILED, _S.IN_PROGRESS, _S.EXPIRED, _S.CANCELLING, _S.CANCELLED}),
    _S.IN_PROGRESS: frozenset({_S.FINALIZING, _S.CANCELLING, _S.CANCELLED}),
    _S.FINALIZING: frozenset({_S.COMPLETED, _S.EXPIRED, _S.CANCELLED}),
    _S.CANCELLING: frozenset({_S.CANCELLED}),
    _S.FAILED: frozenset(),
    _S.COMPLETED: frozenset(),
    _S.EXPIRED: frozenset(),
    _S.CANCELLED: frozenset(),
}
TERMINAL: Final = frozenset(state for state, following in NEXT.items() if not following)
ACTIVE: Final = frozenset(BatchState) - TERMINAL


class BatchEndpoint(StrEnum):
    """What the lines of a batch call."""

    CHAT = "/v1/chat/completions"
    RESPONSES = "/v1/responses"
    EMBEDDINGS = "/v1/embeddings"
    TRANSCRIPTIONS = "/v1/audio/transcriptions"
    TRANSLATIONS = "/v1/audio/translations"


class CancelReason(StrEnum):
    """Why a batch was cancelled."""

    CUSTOMER = "customer"
    INPUT_DELETED = "input_deleted"  # finished lines are delivered
    POLICY = "policy"  # the feature is off: nothing is delivered, nothing is kept


class LineCode(StrEnum):
    """What is wrong with a line of the input, or with the whole of it."""

    EMPTY_FILE = "empty_file"
    INVALID_ENCODING = "invalid_encoding"
    COMPRESSED = "compressed_file"
    TOO_MANY_LINES = "too_many_lines"
    FILE_TOO_LARGE = "file_too_large"
    INPUT_GONE = "input_file_gone"
    LINE_TOO_LONG = "line_too_long"
    INVALID_JSON = "invalid_json_line"
    MISSING = "missing_required_parameter"
    INVALID_TYPE = "invalid_type"
    INVALID_VALUE = "invalid_value"
    UNKNOWN_PARAMETER = "unknown_parameter"
    DUPLICATE_ID = "duplicate_custom_id"
    INVALID_METHOD = "invalid_method"
    URL_MISMATCH = "mismatched_url"
    MODEL_NOT_FOUND = "model_not_found"
    MODEL_NOT_ALLOWED = "model_not_allowed"
    STREAM_NOT_ALLOWED = "stream_not_allowed"
    INTERNAL = "internal_error"


class LineParam(StrEnum):
    """The part of a line that an error is about."""

    CUSTOM_ID = "custom_id"
    METHOD = "method"
    URL = "url"
    BODY = "body"
    MODEL = "body.model"
    STREAM = "body.stream"


TEXT_OF: Final[Mapping[LineCode, str]] = {
    LineCode.EMPTY_FILE: "The input file holds no request.",
    LineCode.INVALID_ENCODING: "The input file is not UTF-8 text.",
    LineCode.COMPRESSED: "The input file is compressed: upload JSON Lines as plain text.",
    LineCode.TOO_MANY_LINES: "The input file holds more requests than a batch may have.",
    LineCode.FILE_TOO_LARGE: "The input file is larger than that of a batch may be.",
    LineCode.INPUT_GONE: "The input file was deleted or has expired.",
    LineCode.LINE_TOO_LONG: "This line is longer than a request may be.",
    LineCode.INVALID_JSON: "This line is not a JSON object in UTF-8.",
    LineCode.MISSING: "This line lacks a required parameter.",
    LineCode.INVALID_TYPE: "A parameter of this line has the wrong type.",
    LineCode.INVALID_VALUE: "A parameter of this line has a value that is not possible.",
    LineCode.UNKNOWN_PARAMETER: "This line has a parameter that a batch line does not know.",
    LineCode.DUPLICATE_ID: "The custom_id of this line stands in an earlier line.",
    LineCode.INVALID_METHOD: "The method of a batch line is POST.",
    LineCode.URL_MISMATCH: "The url of this line is not the endpoint of the batch.",
    LineCode.MODEL_NOT_FOUND: "The model of this line does not exist or does not serve this endpoint.",
    LineCode.MODEL_NOT_ALLOWED: "The organization's policy does not permit the engine of this line's model.",
    LineCode.STREAM_NOT_ALLOWED: "A batch line cannot be streamed.",
    LineCode.INTERNAL: "The batch could not be read; it is our fault.",
}


@dataclass(frozen=True, slots=True)
class LineError:
    """What is wrong, and in which line (from 1); None = the file as a whole."""

    line: int | None
    code: LineCode
    param: LineParam | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """OpenAI's `request_counts`. `failed` counts the lines of the error file."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class Usage(NamedTuple):  # not a dataclass: one is made for each answer
    """Tokens of the answers in the output file, as their engines counted them."""

    input: int = 0
    cached: int = 0  # of the input
    output: int = 0
    reasoning: int = 0  # of the output


@dataclass(frozen=True, slots=True)
class NewBatch:
    """What is known of a batch when it is created. Instants and durations in milliseconds.

    `output_life_ms` is `output_expires_after`; None = as long as the schedule says.
    """

    organization_id: Id
    project_id: Id
    key_id: Id
    endpoint: BatchEndpoint
    input_file_id: Id
    window_ms: int
    metadata_object_id: Id | None = None
    output_life_ms: int | None = None
    window_in_days: bool = False  # how it was asked for


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch as its row says. Instants in Unix ms; None = did not happen (yet)."""

    id: Id
    organization_id: Id
    project_id: Id
    key_id: Id
    endpoint: BatchEndpoint
    state: BatchState
    input_file_id: Id
    output_file_id: Id | None
    error_file_id: Id | None
    metadata_object_id: Id | None
    window_ms: int
    output_life_ms: int | None
    cancel_reason: CancelReason | None
    created_at: int
    expires_at: int
    in_progress_at: int | None
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    line_errors: int  # how many there were; at most `MOST_LINE_ERRORS` are kept
    counts: Counts = Counts()
    usage: Usage | None = None  # known at the end
    window_in_days: bool = False
    model: str | None = None  # of the operator's catalogue, that every line asks; known once validated

    @property
    def ended_at(self) -> int | None:
        """When it came to its end; None while it is active."""
        return self.completed_at or self.failed_at or self.expired_at or self.cancelled_at

    def with_counts(self, counts: Counts) -> "Batch":
        """The same batch with other counts."""
        return replace(self, counts=counts)
