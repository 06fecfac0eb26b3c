"""The embedded engine for tests: one thread, since the machine is shared."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from keepless.config import DEFAULT_MODEL, ModelConfig
from keepless.inference.embedded.llama import LlamaProcess

MODEL = msgspec.structs.replace(DEFAULT_MODEL, threads=1)

# A schema that makes the model write for long, whatever it would like to say.
LONG = {
    "type": "json_schema",
    "json_schema": {
        "name": "long",
        "schema": {
            "type": "array",
            "minItems": 99,
            "maxItems": 99,
            "items": {"type": "string", "minLength": 40, "maxLength": 60},
        },
    },
}


@contextmanager
def engine(directory: Path, model: ModelConfig = MODEL) -> Iterator[LlamaProcess]:
    """A running engine in `directory`/run (a new folder)."""
    process = LlamaProcess(model, directory / "run")
    process.start()
    try:
        assert process.wait_ready(60), process.word
        yield process
    finally:
        process.stop()


def cpu_ticks(pid: int) -> int:
    """Processor time a process has used so far, in clock ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def chat(text: str = "What is the capital of France? One sentence.", **more) -> dict:
    return json.loads(json.dumps({"model": MODEL.id, "messages": [{"role": "user", "content": text}], **more}))
