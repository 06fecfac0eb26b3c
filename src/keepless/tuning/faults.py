"""What can be wrong with a file that is trained on: closed codes, places and parts, with their texts. Pure values.

Holds: `FaultCode`, `FaultParam`, `FaultFile`, `Fault`, `FAULT_TEXT`. Leaves out: finding them (dataset).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["FAULT_TEXT", "MOST_FAULTS", "Fault", "FaultCode", "FaultFile", "FaultParam"]

MOST_FAULTS: Final = 100  # kept of one job; the others are counted


class FaultFile(StrEnum):
    """Which file, in the words of the call that named it."""

    TRAINING = "training_file"
    VALIDATION = "validation_file"


class FaultCode(StrEnum):
    """What is wrong with a line, or with the whole of a file."""

    EMPTY_FILE = "empty_file"
    COMPRESSED = "compressed_file"
    INVALID_ENCODING = "invalid_encoding"
    TOO_FEW_EXAMPLES = "too_few_examples"
    TOO_MANY_EXAMPLES = "too_many_examples"
    FILE_TOO_LARGE = "file_too_large"
    LINE_TOO_LONG = "line_too_long"
    INVALID_JSON = "invalid_json_line"
    MISSING = "missing_required_parameter"
    UNKNOWN_PARAMETER = "unknown_parameter"
    INVALID_TYPE = "invalid_type"
    INVALID_VALUE = "invalid_value"
    INVALID_ROLE = "invalid_role"
    INVALID_ORDER = "invalid_order"
    NOTHING_TO_LEARN = "nothing_to_learn"

    # of an adapter that is imported (tuning.adapter)
    ADAPTER_LARGE = "adapter_too_large"
    ADAPTER_ZIP = "adapter_not_a_zip"
    ADAPTER_FILES = "adapter_files"
    ADAPTER_CONFIG = "adapter_config_invalid"
    ADAPTER_RANK = "adapter_rank"
    ADAPTER_UNSUPPORTED = "adapter_unsupported"
    ADAPTER_WEIGHTS = "adapter_weights_invalid"
    ADAPTER_TENSOR = "adapter_tensor_unknown"
    ADAPTER_SHAPE = "adapter_tensor_shape"
    ADAPTER_TYPE = "adapter_tensor_type"
    ADAPTER_INCOMPLETE = "adapter_incomplete"
    ADAPTER_FINITE = "adapter_not_finite"


class FaultParam(StrEnum):
    """The part of an example that a fault is about."""

    MESSAGES = "messages"
    ROLE = "messages.role"
    CONTENT = "messages.content"
    NAME = "messages.name"
    WEIGHT = "messages.weight"
    TOOL_CALLS = "messages.tool_calls"
    TOOL_CALL_ID = "messages.tool_call_id"
    TOOLS = "tools"
    PARALLEL = "parallel_tool_calls"


FAULT_TEXT: Final[Mapping[FaultCode, str]] = {
    FaultCode.EMPTY_FILE: "The file holds no example.",
    FaultCode.COMPRESSED: "The file is compressed: upload JSON Lines as plain text.",
    FaultCode.INVALID_ENCODING: "The file is not UTF-8 text.",
    FaultCode.TOO_FEW_EXAMPLES: "The file holds fewer examples than a training needs.",
    FaultCode.TOO_MANY_EXAMPLES: "The file holds more examples than a training may have.",
    FaultCode.FILE_TOO_LARGE: "The file is larger than that of a training may be.",
    FaultCode.LINE_TOO_LONG: "This line is longer than an example may be.",
    FaultCode.INVALID_JSON: "This line is not a JSON object in UTF-8.",
    FaultCode.MISSING: "This line lacks a required parameter.",
    FaultCode.UNKNOWN_PARAMETER: "This line has a parameter that an example does not know.",
    FaultCode.INVALID_TYPE: "A parameter of this line has the wrong type.",
    FaultCode.INVALID_VALUE: "A parameter of this line has a value that is not possible.",
    FaultCode.INVALID_ROLE: "A message's role must be system, developer, user, assistant or tool.",
    FaultCode.INVALID_ORDER: "A system message stands first, and a tool message follows the call that it answers.",
    FaultCode.NOTHING_TO_LEARN: "No answer of this line that follows a message has a weight other than 0.",
    FaultCode.ADAPTER_LARGE: "The archive is larger than an adapter of this base model can be.",
    FaultCode.ADAPTER_ZIP: "The file is not a plain ZIP archive of stored or deflated files.",
    FaultCode.ADAPTER_FILES: "The archive must hold adapter_model.safetensors and adapter_config.json, and no more.",
    FaultCode.ADAPTER_CONFIG: "adapter_config.json is not the configuration of a LoRA.",
    FaultCode.ADAPTER_RANK: "The rank r must be 8, 16, 32 or 64.",
    FaultCode.ADAPTER_UNSUPPORTED: "adapter_config.json asks for something that is not plain LoRA.",
    FaultCode.ADAPTER_WEIGHTS: "adapter_model.safetensors is not in the safetensors format, or damaged.",
    FaultCode.ADAPTER_TENSOR: "There is a tensor that belongs to no module of the base model.",
    FaultCode.ADAPTER_SHAPE: "A tensor does not have the shape that the base model and the rank ask for.",
    FaultCode.ADAPTER_TYPE: "A tensor is not of the type F32, F16 or BF16.",
    FaultCode.ADAPTER_INCOMPLETE: "There is a module with only one of its two tensors, or no tensor at all.",
    FaultCode.ADAPTER_FINITE: "A tensor holds a number that is not finite.",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and in which line (from 1); None = the file as a whole."""

    file: FaultFile
    line: int | None
    code: FaultCode
    param: FaultParam | None = None
