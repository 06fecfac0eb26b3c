"""The input of /responses: which items and parts are taken; nothing typed is echoed."""

from typing import Any

import pytest

from keepless.errors import Problem
from keepless.gateway.response_items import ITEMS_ONLY_NATIVE, check_input

M = "MARKER"
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "42"}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


@pytest.mark.parametrize(
    "given",
    [
        "",
        "hello",
        [{"role": "user", "content": "hello"}],
        [
            {
                "type": "message",
                "role": "developer",
                "content": [{"type": "input_text", "text": "x"}],
                "status": "completed",
            }
        ],
        [{"id": "msg_1", "role": "assistant", "content": [{"type": "output_text", "text": "x", "annotations": []}]}],
        [{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}], "phase": "commentary"}],
        [CALL, OUTPUT],
        [CALL, {**OUTPUT, "output": [{"type": "input_text", "text": "42"}]}],
        [{"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "sealed"}],
        [user({"type": "input_image", "image_url": "data:", "detail": "low"})],
        [user({"type": "input_file", "file_data": "data:", "filename": "f"})],
        [user({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}})],
        *([{"type": kind}] for kind in sorted(ITEMS_ONLY_NATIVE)),
    ],
)
def test_what_is_taken(given: Any) -> None:
    check_input(given, None)


@pytest.mark.parametrize(
    ("given", "code", "param"),
    [
        (1, "invalid_type", "input"),
        ([], "invalid_value", "input"),
        ([M], "invalid_type", "input[0]"),
        ([{}], "missing_required_parameter", "input[0].type"),
        ([{"type": 1}], "invalid_type", "input[0].type"),
        ([{"type": M}], "invalid_value", "input[0].type"),
        ([{"type": "message"}], "missing_required_parameter", "input[0].role"),
        ([{"role": M, "content": M}], "invalid_value", "input[0].role"),
        ([{"role": "user"}], "missing_required_parameter", "input[0].content"),
        ([{"role": "user", "content": 1}], "invalid_type", "input[0].content"),
        ([{"role": "user", "content": M, M: M}], "unknown_parameter", "input[0]"),
        ([user(M)], "invalid_type", "input[0].content[0]"),
        ([user({M: M})], "missing_required_parameter", "input[0].content[0].type"),
        ([user({"type": "output_text", "text": M})], "invalid_value", "input[0].content[0].type"),
        ([user({"type": "input_text"})], "missing_required_parameter", "input[0].content[0].text"),
        ([user({"type": "input_text", "text": M, M: M})], "unknown_parameter", "input[0].content[0]"),
        ([user({"type": "input_image"})], "missing_required_parameter", "input[0].content[0].image_url"),
        ([user({"type": "input_file"})], "missing_required_parameter", "input[0].content[0].file_data"),
        ([user({"type": "input_image", "image_url": {M: M}})], "invalid_type", "input[0].content[0].image_url"),
        (
            [user({"type": "input_audio", "input_audio": {M: M}})],
            "unknown_parameter",
            "input[0].content[0].input_audio",
        ),
        (
            [{"role": "assistant", "content": [{"type": "refusal"}]}],
            "missing_required_parameter",
            "input[0].content[0].refusal",
        ),
        ([{**CALL, "arguments": {M: M}}], "invalid_type", "input[0].arguments"),
        ([{"type": "function_call"}], "missing_required_parameter", "input[0].call_id"),
        ([OUTPUT], "invalid_value", "input[0].call_id"),
        ([CALL, {**OUTPUT, "call_id": M}], "invalid_value", "input[1].call_id"),
        ([CALL, {**OUTPUT, "output": None}], "missing_required_parameter", "input[1].output"),
        ([{"type": "reasoning", "summary": M}], "invalid_type", "input[0].summary"),
        ([{"type": "reasoning", "encrypted_content": [M]}], "invalid_type", "input[0].encrypted_content"),
        ([{"type": "item_reference", "id": M}], "not_found", "input"),
    ],
)
def test_what_is_refused(given: Any, code: str, param: str) -> None:
    with pytest.raises(Problem) as caught:
        check_input(given, None)
    assert (caught.value.code, caught.value.param) == (code, param)
    assert M not in caught.value.message
