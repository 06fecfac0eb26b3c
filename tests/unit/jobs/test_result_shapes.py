"""The tokens of a line, in the words of each endpoint, or of an engine that says something else."""

import json
from typing import Any

import pytest

from keepless.batches.values import Usage
from keepless.jobs.result_shapes import usage_in


def line(body: Any) -> bytes:
    return json.dumps({"id": "x", "custom_id": "a", "response": {"status_code": 200, "body": body}}).encode()


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        (
            {
                "usage": {
                    "prompt_tokens": 7,
                    "completion_tokens": 5,
                    "total_tokens": 12,
                    "prompt_tokens_details": {"cached_tokens": 3, "audio_tokens": 0},
                    "completion_tokens_details": {"reasoning_tokens": 2},
                }
            },
            Usage(7, 3, 5, 2),
        ),
        (
            {
                "usage": {
                    "input_tokens": 7,
                    "output_tokens": 5,
                    "input_tokens_details": {"cached_tokens": None},
                    "output_tokens_details": {"reasoning_tokens": 4},
                }
            },
            Usage(7, 0, 5, 4),
        ),
        ({"usage": {"prompt_tokens": 9, "total_tokens": 9}}, Usage(9)),
        ({"usage": None}, Usage()),
        ({"usage": {"prompt_tokens": "many"}}, Usage()),
        ({"usage": {"prompt_tokens": -4, "completion_tokens": 2**62}}, Usage(0, 0, 2**40, 0)),
        ("the text of a transcription", Usage()),
        ([1], Usage()),
    ],
    ids=["chat", "responses", "embeddings", "null", "text", "absurd", "transcription", "list"],
)
def test_what_is_counted(body: Any, usage: Usage) -> None:
    assert usage_in(line(body)) == usage
