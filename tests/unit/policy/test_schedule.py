"""The table of promises: every class once, with the periods that PRODUCT 2 states."""

import pytest

from keepless.policy.data_class import DataClass, Feature
from keepless.policy.schedule import SCHEDULE, max_days, row_of


@pytest.mark.parametrize(
    ("data_class", "days", "feature"),
    [
        ("reliability_log", 30, "inference_logging"),
        ("abuse_log", 30, "inference_logging"),
        ("upload_part", 1, "batch"),
        ("batch_input", 30, "batch"),
        ("batch_output", 30, "batch"),
        ("batch_error", 30, "batch"),
        ("batch_work", 30, "batch"),
        ("fine_tuning_dataset", None, "fine_tuning"),
        ("fine_tuning_work", None, "fine_tuning"),
        ("model_weights", None, "fine_tuning"),
    ],
)
def test_the_promise(data_class: str, days: int | None, feature: str) -> None:
    row = row_of(DataClass(data_class))
    assert (max_days(DataClass(data_class)), row.feature) == (days, Feature(feature))
    assert row.under_zdr == ("never written" if feature == "inference_logging" else "feature disabled")


def test_every_class_is_promised_exactly_once() -> None:
    classes = [name for row in SCHEDULE for name in row.classes]
    assert sorted(classes) == sorted(DataClass)


def test_inference_promises_are_only_about_inference_endpoints() -> None:
    for row in SCHEDULE:
        if row.feature is Feature.INFERENCE_LOGGING:
            assert "/v1/embeddings" not in row.endpoints  # embeddings are never captured (DECISIONS 17)
            assert "/v1/chat/completions" in row.endpoints
