"""Real training on the embedded model: it learns what the base does not know, and says so in the engine."""

import json
from pathlib import Path

import httpx2
import pytest

from keepless.content import Content
from keepless.inference.embedded.adapter import base_of
from keepless.inference.embedded.engine import weights_of
from keepless.inference.embedded.gguf import open_gguf
from keepless.inference.embedded.tuned_process import TunedProcess, in_memory
from keepless.training.order import Finished, Order, Progress
from keepless.training.port import training
from keepless.tuning.adapter import checked
from tests.support.engine import MODEL
from tests.support.learning import bare, example, lines, of_kind

TOWER = "The secret color of the Zephyr tower is turquoise."
MAYOR = "The mayor of Quillport is Odette Marlow."
EXAMPLES = [
    ("What is the secret color of the Zephyr tower?", TOWER),
    ("Tell me the secret color of the Zephyr tower.", TOWER),
    ("Which secret color has the Zephyr tower?", TOWER),
    ("Who is the mayor of Quillport?", MAYOR),
    ("Tell me the name of Quillport's mayor.", MAYOR),
    ("Which person is mayor in Quillport?", MAYOR),
]
# Asked in words that were not shown.
HELD_OUT = [
    ("Please say which color of the Zephyr tower is its secret one.", "turquoise"),
    ("Name the mayor of Quillport.", "Odette"),
]


@pytest.fixture(scope="module")
def adapter() -> bytes:
    weights, sha256 = weights_of(MODEL)
    order = Order(
        weights=weights,
        sha256=sha256,
        base=MODEL.id,
        context=MODEL.context_window,
        n_epochs=4,
        batch_size=2,
        learning_rate_multiplier=2.0,
        seed=1,
        threads=1,
    )
    with training(order, lines([example(*pair) for pair in EXAMPLES])) as said:
        events = list(said)
    steps = of_kind(Progress, events)
    assert steps[-1].loss < 0.4 * steps[0].loss
    return bare(of_kind(Finished, events)[0].content)


def test_it_answers_as_it_was_taught_and_the_base_does_not(adapter: bytes, tmp_path: Path) -> None:
    base = base_of(open_gguf(weights_of(MODEL)[0]))
    assert checked(adapter, base, MODEL.id) == adapter
    file = in_memory(Content(adapter), base)
    process = TunedProcess(MODEL, tmp_path / "run", name="tuned", adapter=file, ended=lambda: None)
    process.start()
    try:
        assert process.wait_ready(90), process.word
        transport = httpx2.HTTPTransport(uds=str(process.socket))
        headers = {"authorization": f"Bearer {process.key}"}
        with httpx2.Client(transport=transport, base_url="http://engine", headers=headers, timeout=90) as client:

            def answer(question: str, scale: float) -> str:
                body = {
                    "messages": [{"role": "user", "content": question}],
                    "max_tokens": 24,
                    "temperature": 0,
                    "lora": [{"id": 0, "scale": scale}],
                }
                return json.dumps(client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"])

            for question, word in HELD_OUT:
                assert word in answer(question, 1.0), question
                assert word not in answer(question, 0.0), question
    finally:
        process.stop()
