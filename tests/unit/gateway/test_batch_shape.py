"""A batch as both SDKs parse it, and how far it is."""

import json
from dataclasses import replace

import groq.types
import msgspec
import openai.types
import pytest

from keepless.batches.values import Batch, BatchEndpoint, BatchState, Counts, LineCode, LineError, LineParam, Usage
from keepless.clock import DAY_MS
from keepless.gateway.batch_shape import listing_of, progress_of, shape_of
from keepless.ids import Prefix, mint

NOW = 1_800_000_000_000
BATCH = Batch(
    id=mint(Prefix.BATCH),
    organization_id=mint(Prefix.ORGANIZATION),
    project_id=mint(Prefix.PROJECT),
    key_id=mint(Prefix.API_KEY),
    endpoint=BatchEndpoint.CHAT,
    state=BatchState.VALIDATING,
    input_file_id=mint(Prefix.FILE),
    output_file_id=None,
    error_file_id=None,
    metadata_object_id=None,
    window_ms=DAY_MS,
    output_life_ms=None,
    cancel_reason=None,
    created_at=NOW,
    expires_at=NOW + DAY_MS,
    in_progress_at=None,
    finalizing_at=None,
    completed_at=None,
    failed_at=None,
    expired_at=None,
    cancelling_at=None,
    cancelled_at=None,
    line_errors=0,
)


def test_both_sdks_read_it() -> None:
    done = replace(
        BATCH,
        state=BatchState.COMPLETED,
        output_file_id=mint(Prefix.FILE),
        completed_at=NOW + 5_000,
        counts=Counts(3, 2, 1),
        usage=Usage(70, 30, 50, 20),
        model="m",
    )
    told = msgspec.json.encode(shape_of(done, [], b'{"a":"b"}', NOW))
    for kind in (openai.types.Batch, groq.types.BatchRetrieveResponse):
        read = kind.model_validate_json(told, strict=True)
        assert (read.id, read.status, read.completed_at) == (done.id, "completed", NOW // 1000 + 5)
        assert (read.request_counts.total, read.request_counts.failed) == (3, 1)
        assert read.metadata == {"a": "b"}
        assert json.loads(told)["model"] == "m"
        assert (read.errors, read.error_file_id, read.output_file_id) == (None, None, done.output_file_id)


def test_openais_usage_is_there_once_a_batch_has_ended() -> None:
    assert shape_of(BATCH, [], None, NOW)["usage"] is None
    told = msgspec.json.encode(shape_of(replace(BATCH, usage=Usage(70, 30, 50, 20)), [], None, NOW))
    usage = openai.types.Batch.model_validate_json(told, strict=True).usage
    assert usage is not None
    assert (usage.input_tokens, usage.input_tokens_details.cached_tokens) == (70, 30)
    assert (usage.output_tokens, usage.output_tokens_details.reasoning_tokens, usage.total_tokens) == (50, 20, 120)


def test_errors_name_lines_codes_and_parts_with_our_words() -> None:
    failed = replace(BATCH, state=BatchState.FAILED, line_errors=7)
    errors = [LineError(3, LineCode.DUPLICATE_ID, LineParam.CUSTOM_ID), LineError(None, LineCode.EMPTY_FILE)]
    read = openai.types.Batch.model_validate_json(msgspec.json.encode(shape_of(failed, errors, None, NOW)))
    assert read.errors is not None
    assert read.errors.data is not None
    first, second = read.errors.data
    assert (first.line, first.code, first.param) == (3, "duplicate_custom_id", "custom_id")
    assert first.message
    assert (second.line, second.param) == (None, None)


@pytest.mark.parametrize(
    ("state", "counts", "percent", "eta"),
    [
        (BatchState.VALIDATING, Counts(), 0.0, None),
        (BatchState.IN_PROGRESS, Counts(100, 0, 0), 0.0, None),
        (BatchState.IN_PROGRESS, Counts(100, 20, 5), 25.0, 30),
        (BatchState.IN_PROGRESS, Counts(3, 1, 0), 33.3, 20),
        (BatchState.FINALIZING, Counts(100, 95, 5), 100.0, None),
        (BatchState.COMPLETED, Counts(0, 0, 0), 100.0, 0),
        (BatchState.EXPIRED, Counts(10, 5, 0), 50.0, 0),
    ],
)
def test_progress(state: BatchState, counts: Counts, percent: float, eta: int | None) -> None:
    begun = replace(BATCH, state=state, counts=counts, in_progress_at=NOW - 10_000)
    told = progress_of(begun, NOW)
    assert (told["percent"], told["eta_seconds"]) == (percent, eta)


def test_a_page_in_both_vendors_words() -> None:
    shapes = [{"id": "a"}, {"id": "b"}]
    page = listing_of(shapes, more=True)
    assert (page["first_id"], page["last_id"], page["has_more"], page["paging"]) == (
        "a",
        "b",
        True,
        {"next_cursor": "b"},
    )
    assert listing_of([], more=False)["paging"] == {"next_cursor": None}
