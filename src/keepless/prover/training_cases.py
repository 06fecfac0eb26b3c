"""Fine-tunings that are killed half way: a training with its trainer and then with everything, and an import.

Holds: `train`, `under_way`, `goes_on`, `Begun` and `PROGRAM` (a training); `send`, `import_now` and `imported` (an
import). Leaves out: who is killed and when (feature_proof, throwaway), models that are there (tuned_cases).

The training is a real one, of the embedded base, and far too long to end: what counts is where its examples, its
checkpoints and its optimizer's state can be found while it goes on and after each death.
"""

import json
import time
from dataclasses import dataclass
from typing import Any, Final

from keepless.prover.customer import BrokenPromiseError, Customer
from keepless.prover.models import EMBEDDED
from keepless.prover.tuned_cases import DATASET, PURPOSE, Tuned, memorised, order, says, until_ended

__all__ = ["PROGRAM", "Begun", "goes_on", "import_now", "imported", "send", "train", "under_way"]

PROGRAM: Final = b"keepless.training.process"
_EXAMPLES: Final = 40
_KNOBS: Final = {"n_epochs": 50, "batch_size": 1, "r": 8}
_WAIT_S: Final = 400.0
_LOOK_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Begun:
    """A training that has kept a checkpoint."""

    job_id: str
    file_id: str


def train(customer: Customer) -> Begun:
    """Begin a training with markers in its examples, its name and its metadata; there is a checkpoint of it."""
    mark = customer.mark
    examples = [
        {
            "messages": [
                {"role": "user", "content": mark("example's question")},
                {"role": "assistant", "content": mark("example's answer")},
            ]
        }
        for _ in range(_EXAMPLES)
    ]
    file_id = customer.upload("\n".join(map(json.dumps, examples)).encode(), PURPOSE, DATASET)
    asked = {
        "model": EMBEDDED,
        "training_file": file_id,
        "suffix": mark("model name"),
        "metadata": {mark("metadata name"): mark("metadata value")},
        "method": {"type": "supervised", "supervised": {"hyperparameters": _KNOBS}},
    }
    made = customer.json("POST", "/fine_tuning/jobs", asked)
    if made["metadata"] != asked["metadata"]:
        raise BrokenPromiseError("the fine-tuning is not the one that was sent")
    begun = Begun(str(made["id"]), file_id)
    _until(customer, begun, lambda: _checkpoints(customer, begun))
    return begun


def under_way(customer: Customer, begun: Begun) -> None:
    """Whoever died, the training has not ended."""
    _until(customer, begun, lambda: True)
    if not _checkpoints(customer, begun):
        raise BrokenPromiseError("the checkpoints of a training are gone before its end")
    customer.kept = True


def goes_on(customer: Customer, begun: Begun) -> None:
    """After all deaths it has gone on from a checkpoint; it has not ended."""
    _until(customer, begun, lambda: _started(customer, begun))
    under_way(customer, begun)


def _until(customer: Customer, begun: Begun, there: Any) -> None:
    until = time.monotonic() + _WAIT_S
    while True:
        if customer.json("GET", f"/fine_tuning/jobs/{begun.job_id}")["progress"]["ended"]:
            raise BrokenPromiseError("a training has ended that should go on")
        if there():
            return
        if time.monotonic() > until:
            raise BrokenPromiseError("a training does not go on")
        time.sleep(_LOOK_S)


def _checkpoints(customer: Customer, begun: Begun) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = customer.json("GET", f"/fine_tuning/jobs/{begun.job_id}/checkpoints")["data"]
    return found


def _started(customer: Customer, begun: Begun) -> bool:
    """Whether it was started from a checkpoint, and a step followed."""
    newest = customer.json("GET", f"/fine_tuning/jobs/{begun.job_id}/events?limit=100")["data"]
    codes = [one["code"] for one in newest]
    if "goes_on" in codes:
        return "metrics" in codes[: codes.index("goes_on")]
    return False


# -- an import -------------------------------------------------------------------------------------------------------


def send(customer: Customer) -> tuple[str, str]:
    """Upload an adapter; the word that it says, and its file."""
    word, data = memorised(customer.mark("weights"))
    return word, customer.upload(data, PURPOSE, DATASET)


def import_now(customer: Customer, file_id: str) -> str:
    """Ask for the import and wait for nothing; its id."""
    made = customer.json("POST", "/fine_tunings", order(customer, file_id))
    return str(made["data"]["id"])


def imported(customer: Customer, tuning_id: str, word: str, file_id: str) -> None:
    """It comes to its end after all, and the model answers."""
    found = until_ended(customer, tuning_id)
    if found["status"] != "succeeded":
        raise BrokenPromiseError("an import that was killed does not come to its end")
    says(customer, Tuned(str(found["fine_tuned_model"]), word, tuning_id, file_id))
    customer.kept = True
