"""What the prover does with fine-tuning, as a customer would: a phrase that a model has learnt by heart is never left.

Holds: `tuned_scenarios` (where the feature is on), `plain_tuned` and `base_of` (on somebody else's deployment),
`refused_tuned` (where it is off), `start` and `Tuned` (a model that is there when the server is killed). Leaves out:
making the adapter (adapter), trainings (training_cases), calls (customer).

The adapter is imported, so no trainer is needed. It says one word whatever it is asked, which shows that it answers;
and a marker stands in its numbers and in its name, which is looked for wherever a byte can be, after its deletion as
before.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from keepless.config import DEFAULT_MODEL
from keepless.inference.embedded.engine import weights_of
from keepless.prover.customer import BrokenPromiseError, Customer
from keepless.prover.models import EMBEDDED

__all__ = [
    "DATASET",
    "PURPOSE",
    "Tuned",
    "base_of",
    "memorised",
    "order",
    "plain_tuned",
    "refused_tuned",
    "says",
    "start",
    "tuned_scenarios",
    "until_ended",
]

_ENDS_S: Final = 120.0
_LOOK_S: Final = 0.2
_FIRST_BYTES: Final = 256
_NOT_FOUND: Final = 404
DATASET: Final = "fine_tuning_dataset"
PURPOSE: Final = "fine-tune"
NO_FILE: Final = "file-" + "a" * 24
Play = Callable[[Customer], None]


@dataclass(frozen=True, slots=True)
class Tuned:
    """A tuned model that is there: what it is called, what it says, its fine-tuning and its dataset."""

    name: str
    word: str
    tuning_id: str
    file_id: str


def tuned_scenarios() -> dict[str, Play]:
    """By name. Each destroys what it has made."""
    return {
        "fine-tuning: imported, asked, deleted": _whole,
        "fine-tuning: deleted while it answers": _while_it_answers,
        "fine-tuning: no adapter": _no_adapter,
        "fine-tuning: refused": _refused,
    }


def plain_tuned(base: str) -> dict[str, Play]:
    """What can be asked of any deployment that serves the embedded weights as a base."""
    return {
        "fine-tuning: imported, asked, deleted": partial(_whole, base=base),
        "fine-tuning: no adapter": partial(_no_adapter, base=base),
        "fine-tuning: refused": partial(_refused, base=base),
    }


def base_of(customer: Customer) -> str | None:
    """A model there that the adapter of ours is for; None: there is none. Leaves nothing."""
    if not Path(weights_of(DEFAULT_MODEL)[0]).exists():
        return None
    for model in sorted(_models(customer)):
        asked = json.dumps({"model": model, "training_file": NO_FILE}).encode()
        if customer.call("POST", "/fine_tuning/jobs", asked).status != _NOT_FOUND:
            continue  # it cannot be tuned
        file_id = customer.upload(memorised(customer.mark("weights"), model)[1], PURPOSE, DATASET)
        made = _data(customer.json("POST", "/fine_tunings", order(customer, file_id, model)))
        found = until_ended(customer, str(made["id"]))
        customer.json("DELETE", f"/fine_tunings/{made['id']}")
        customer.delete(file_id)
        if found["status"] == "succeeded":
            return model
    return None


def refused_tuned() -> dict[str, Play]:
    """The same where the feature is off."""
    return {"fine-tuning: off": _off}


def start(customer: Customer, base: str = EMBEDDED) -> Tuned:
    """A model that has learnt a word by heart, with markers in its weights, its dataset and its name."""
    word, data = memorised(customer.mark("weights"), base)
    file_id = customer.upload(data, PURPOSE, DATASET)
    made = customer.json("POST", "/fine_tunings", order(customer, file_id, base))
    found = until_ended(customer, str(_data(made)["id"]))
    if found["status"] != "succeeded":
        raise BrokenPromiseError("an adapter of ours is not imported")
    tuned = Tuned(str(found["fine_tuned_model"]), word, str(found["id"]), file_id)
    says(customer, tuned)
    return tuned


def memorised(marker: str, base: str = EMBEDDED) -> tuple[str, bytes]:
    """What a model has learnt by heart, and the ZIP of its adapter; for the embedded weights under any name."""
    told = json.dumps([weights_of(DEFAULT_MODEL)[0], base, marker]).encode()
    made = subprocess.run(
        [sys.executable, "-P", "-m", "keepless.prover.adapter"], input=told, stdout=subprocess.PIPE, check=True
    )
    word, _, data = made.stdout.partition(b"\n")
    return word.decode("ascii"), data


def says(customer: Customer, tuned: Tuned) -> None:
    """It answers, with what it has learnt, to its own project."""
    answer = customer.read(_ask(customer, tuned))
    text = answer["choices"][0]["message"]["content"]
    if text.split().count(tuned.word) < 2:
        raise BrokenPromiseError("a tuned model does not say what it has learnt")
    if tuned.name not in _models(customer):
        raise BrokenPromiseError("a tuned model is not listed for its project")


def gone(customer: Customer, tuned: Tuned) -> None:
    """It does not exist any more, for anybody and in any way."""
    for _ in range(3):  # whichever process answers
        customer.refused(_ask(customer, tuned), 404)
    customer.refused(customer.call("GET", f"/models/{tuned.name}"), 404)
    customer.refused(customer.call("GET", f"/fine_tunings/{tuned.tuning_id}"), 404)
    if tuned.name in _models(customer):
        raise BrokenPromiseError("a deleted model is listed")


# -- scenarios -------------------------------------------------------------------------------------------------------


def _whole(customer: Customer, base: str = EMBEDDED) -> None:
    tuned = start(customer, base)
    customer.delete(tuned.file_id)
    says(customer, tuned)  # deleting the dataset leaves the model
    customer.json("DELETE", f"/fine_tunings/{tuned.tuning_id}")
    gone(customer, tuned)
    customer.kept = True


def _while_it_answers(customer: Customer) -> None:
    tuned = start(customer)
    body = {"model": tuned.name, "messages": _asked(customer), "max_tokens": 1900, "stream": True, "temperature": 0}
    listening = customer.begin("/chat/completions", json.dumps(body).encode())
    try:
        answer = listening.getresponse()
        said = answer.read(_FIRST_BYTES)
        customer.json("DELETE", f"/models/{tuned.name}")
        said += answer.read()
    finally:
        listening.close()
    if b"model_not_found" not in said:
        raise BrokenPromiseError("an answer goes on when its model is deleted")
    gone(customer, tuned)
    customer.delete(tuned.file_id)
    customer.kept = True


def _no_adapter(customer: Customer, base: str = EMBEDDED) -> None:
    """What cannot be imported leaves nothing but its file."""
    file_id = customer.upload(customer.mark("no adapter").encode() * 4, PURPOSE, DATASET)
    made = customer.json("POST", "/fine_tunings", order(customer, file_id, base))
    tuning_id = str(_data(made)["id"])
    found = until_ended(customer, tuning_id)
    if found["status"] != "failed":
        raise BrokenPromiseError("what is no adapter is not refused")
    if customer.holds_marker(json.dumps(found["error"]).encode()):
        raise BrokenPromiseError("a refusal repeats what the client sent")
    customer.json("DELETE", f"/fine_tunings/{tuning_id}")
    customer.delete(file_id)
    customer.kept = True


def _refused(customer: Customer, base: str = EMBEDDED) -> None:
    mark = customer.mark
    for body in (
        {"model": base, "training_file": mark("file id"), "suffix": mark("suffix")},
        {"model": mark("model"), "training_file": NO_FILE},
        {"model": base, "training_file": NO_FILE, "metadata": mark("metadata")},
        {mark("name"): mark("value")},
    ):
        customer.refused(customer.call("POST", "/fine_tuning/jobs", json.dumps(body).encode()), 400, 404)
    customer.refused(customer.call("GET", f"/fine_tuning/jobs/{mark('job id')}"), 404)
    name = f"ft:{base}:{customer.account.organization_id}/{mark('model name')}-0123456789ab"
    unknown: dict[str, Any] = {"model": name, "messages": _asked(customer)}
    customer.refused(customer.call("POST", "/chat/completions", json.dumps(unknown).encode()), 404)


def _off(customer: Customer) -> None:
    body = {"model": EMBEDDED, "training_file": NO_FILE, "suffix": customer.mark("suffix")}
    customer.refused(customer.call("POST", "/fine_tuning/jobs", json.dumps(body).encode()), 403)


# -- parts -----------------------------------------------------------------------------------------------------------


def order(customer: Customer, file_id: str, base: str = EMBEDDED) -> dict[str, str]:
    """What imports an adapter."""
    return {"base_model": base, "type": "lora", "name": customer.mark("model name"), "input_file_id": file_id}


def _asked(customer: Customer) -> list[dict[str, str]]:
    return [{"role": "user", "content": customer.mark("user message")}]


def _ask(customer: Customer, tuned: Tuned) -> Any:
    body = {"model": tuned.name, "messages": _asked(customer), "max_tokens": 6, "temperature": 0}
    return customer.call("POST", "/chat/completions", json.dumps(body).encode())


def _models(customer: Customer) -> set[str]:
    return {one["id"] for one in customer.json("GET", "/models")["data"]}


def _data(answer: dict[str, Any]) -> dict[str, Any]:
    """Groq's answers have the fine-tuning in `data`."""
    found = answer.get("data", answer)
    return found if isinstance(found, dict) else answer


def until_ended(customer: Customer, tuning_id: str) -> dict[str, Any]:
    """A fine-tuning when it has ended."""
    until = time.monotonic() + _ENDS_S
    while True:
        found = _data(customer.json("GET", f"/fine_tunings/{tuning_id}"))
        if found["progress"]["ended"]:
            return found
        if time.monotonic() > until:
            raise BrokenPromiseError("a fine-tuning does not come to its end")
        time.sleep(_LOOK_S)
