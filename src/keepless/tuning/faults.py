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
    FaultCode.NOTHING_TO_LEARN: "No assistant message of this line has a weight other than 0.",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and in which line (from 1); None = the file as a whole."""

    file: FaultFile
    line: int | None
    code: FaultCode
    param: FaultParam | None = None
