"""A batch as OpenAI's and Groq's clients read it, with how far it is (an extension).

Holds: `shape_of` and `listing_of`. Pure: the batch, the clock's reading, and the customer's metadata as the JSON they
were sent as.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from keepless.batches.values import TERMINAL, TEXT_OF, Batch, BatchState, LineError, Usage
from keepless.gateway.batch_order import window_text

__all__ = ["listing_of", "progress_of", "shape_of"]

_INSTANTS: Final = (
    *("in_progress_at", "finalizing_at", "completed_at", "failed_at", "expired_at", "cancelling_at", "cancelled_at"),
)


def shape_of(batch: Batch, errors: Sequence[LineError], metadata: bytes | None, now_ms: int) -> dict[str, Any]:
    """One batch. `metadata`: the JSON of an object, or None."""
    return {
        "id": str(batch.id),
        "object": "batch",
        "endpoint": batch.endpoint.value,
        "model": batch.model,
        "errors": _errors(batch, errors),
        "input_file_id": str(batch.input_file_id),
        "completion_window": window_text(batch.window_ms, in_days=batch.window_in_days),
        "status": batch.state.value,
        "output_file_id": _id(batch.output_file_id),
        "error_file_id": _id(batch.error_file_id),
        "created_at": batch.created_at // 1000,
        "expires_at": batch.expires_at // 1000,
        **{name: _seconds(getattr(batch, name)) for name in _INSTANTS},
        "request_counts": {
            "total": batch.counts.total,
            "completed": batch.counts.completed,
            "failed": batch.counts.failed,
        },
        "usage": _usage(batch.usage),
        "metadata": None if metadata is None else msgspec.Raw(metadata),
        "progress": progress_of(batch, now_ms),
    }


def progress_of(batch: Batch, now_ms: int) -> dict[str, Any]:
    """How far a batch is: `percent` of its lines, and about how many seconds are left (None = nobody can say)."""
    total, done = batch.counts.total, batch.counts.completed + batch.counts.failed
    ended = batch.state in TERMINAL
    left = None
    if batch.state is BatchState.IN_PROGRESS and batch.in_progress_at is not None and done:
        left = (now_ms - batch.in_progress_at) * (total - done) // done // 1000
    elif ended:
        left = 0
    share = round(100 * done / total, 1) if total else 0.0
    percent = 100.0 if batch.state is BatchState.COMPLETED else share
    return {"percent": percent, "done": done, "total": total, "eta_seconds": left, "ended": ended}


def listing_of(shapes: Sequence[dict[str, Any]], *, more: bool) -> dict[str, Any]:
    """A page, in both vendors' words."""
    ids = [shape["id"] for shape in shapes]
    return {
        "object": "list",
        "data": list(shapes),
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
        "has_more": more,
        "paging": {"next_cursor": ids[-1] if more else None},
    }


def _errors(batch: Batch, errors: Sequence[LineError]) -> dict[str, Any] | None:
    if batch.state is not BatchState.FAILED:
        return None
    data = [
        {
            "code": error.code.value,
            "line": error.line,
            "message": TEXT_OF[error.code],
            "param": None if error.param is None else error.param.value,
        }
        for error in errors
    ]
    return {"object": "list", "data": data, "total": batch.line_errors}


def _usage(usage: Usage | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cached},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }


def _id(value: str | None) -> str | None:
    return None if value is None else str(value)


def _seconds(instant_ms: int | None) -> int | None:
    return None if instant_ms is None else instant_ms // 1000
