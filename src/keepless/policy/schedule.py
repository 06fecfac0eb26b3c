"""THE TABLE: what is kept, why, and for how long (PRODUCT 2). Code, API, documentation and tests are generated from it.

Holds: `SCHEDULE`, one row a promise, and look-ups by class. Leaves out: what an owner has set (controls, period).
A class that stands in no row cannot be kept at all: `decide` refuses it.
"""

from dataclasses import dataclass
from typing import Final

from keepless.policy.data_class import DataClass, Feature

__all__ = ["SCHEDULE", "Row", "max_days", "row_of"]


@dataclass(frozen=True, slots=True)
class Row:
    """One promise. `max_days` is a ceiling in days; None means until the customer deletes it (1..3650 may be set)."""

    product: str
    endpoints: tuple[str, ...]
    classes: tuple[DataClass, ...]
    feature: Feature
    why: str
    kept_for: str
    max_days: int | None
    under_zdr: str
    end: str = "created_at"  # what the end is counted from; "job" = ends with the job it belongs to


_INFERENCE: Final = (
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/audio/speech",
)

SCHEDULE: Final[tuple[Row, ...]] = (
    Row(
        product="Inference",
        endpoints=_INFERENCE,
        classes=(DataClass.RELIABILITY_LOG,),
        feature=Feature.INFERENCE_LOGGING,
        why="troubleshooting an error that degrades reliability",
        kept_for="at most 30 days",
        max_days=30,
        under_zdr="never written",
    ),
    Row(
        product="Inference",
        endpoints=_INFERENCE,
        classes=(DataClass.ABUSE_LOG,),
        feature=Feature.INFERENCE_LOGGING,
        why="investigating suspected abuse (e.g. rate-limit circumvention)",
        kept_for="at most 30 days",
        max_days=30,
        under_zdr="never written",
    ),
    Row(
        product="Batch",
        endpoints=("/v1/batches", "/v1/files"),
        classes=(DataClass.BATCH_INPUT, DataClass.BATCH_OUTPUT, DataClass.BATCH_ERROR),
        feature=Feature.BATCH,
        why="the feature needs it",
        kept_for="30 days, unless deleted earlier",
        max_days=30,
        under_zdr="feature disabled",
    ),
    Row(
        product="Batch",
        endpoints=("/v1/batches",),
        classes=(DataClass.BATCH_WORK,),
        feature=Feature.BATCH,
        why="intermediate results of a running batch",
        kept_for="until the batch ends, at most 30 days",
        max_days=30,
        under_zdr="feature disabled",
        end="job",
    ),
    Row(
        product="Batch",
        endpoints=("/v1/uploads",),
        classes=(DataClass.UPLOAD_PART,),
        feature=Feature.BATCH,
        why="parts of an upload that is not finished",
        kept_for="24 hours",
        max_days=1,
        under_zdr="feature disabled",
    ),
    Row(
        product="Fine-tuning",
        endpoints=("/v1/fine_tunings", "/v1/files", "/v1/uploads"),
        classes=(DataClass.FINE_TUNING_DATASET, DataClass.MODEL_WEIGHTS),
        feature=Feature.FINE_TUNING,
        why="the feature needs it",
        kept_for="until the customer deletes it",
        max_days=None,
        under_zdr="feature disabled",
    ),
    Row(
        product="Fine-tuning",
        endpoints=("/v1/fine_tunings",),
        classes=(DataClass.FINE_TUNING_WORK,),
        feature=Feature.FINE_TUNING,
        why="checkpoints, optimizer state and events of a job",
        kept_for="until the job is deleted",
        max_days=None,
        under_zdr="feature disabled",
        end="job",
    ),
)

_ROW_OF: Final = {data_class: row for row in SCHEDULE for data_class in row.classes}
if set(_ROW_OF) != set(DataClass):
    raise TypeError("every data class stands in exactly one row of the schedule")


def row_of(data_class: DataClass) -> Row:
    """The promise that a class is kept under."""
    return _ROW_OF[data_class]


def max_days(data_class: DataClass) -> int | None:
    """The ceiling in days; None = until deleted."""
    return _ROW_OF[data_class].max_days
