"""The classes of customer data and the features they belong to. Values only."""

from enum import StrEnum
from typing import Final

__all__ = ["CAPTURES", "DataClass", "Feature"]


class Feature(StrEnum):
    """What an owner can switch off."""

    INFERENCE_LOGGING = "inference_logging"
    BATCH = "batch"
    FINE_TUNING = "fine_tuning"


class DataClass(StrEnum):
    """What kind of customer data an object is. Every object has exactly one."""

    RELIABILITY_LOG = "reliability_log"
    ABUSE_LOG = "abuse_log"
    UPLOAD_PART = "upload_part"
    BATCH_INPUT = "batch_input"
    BATCH_OUTPUT = "batch_output"
    BATCH_ERROR = "batch_error"
    BATCH_WORK = "batch_work"
    FINE_TUNING_DATASET = "fine_tuning_dataset"
    FINE_TUNING_WORK = "fine_tuning_work"
    MODEL_WEIGHTS = "model_weights"


CAPTURES: Final = (DataClass.RELIABILITY_LOG, DataClass.ABUSE_LOG)  # requests that were captured
