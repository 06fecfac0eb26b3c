"""What the process of a training run does, once it is confined: read an order, train, tell.

Holds: `main` and `train`, one run as events. Leaves out: the fences around it (process, confined), the arithmetic
(loop), who asked (port).

The steps: 1. Order, examples and checkpoint come in; from here on no more memory than ordered. 2. Examples become
texts (examples, tokens); the base model is loaded. 3. Step by step: advance, measure on the validation examples when an
epoch ends, tell; after each step look whether a checkpoint is due or asked for. 4. The adapter is told as a ZIP.
A process without a sign of life for as long as ordered is ended by the kernel's alarm. Nothing is logged; of an error
only its code leaves, because its text may quote an example.
"""

import hashlib
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from keepless.content import Content, Purpose
from keepless.inference.embedded.adapter import base_of, pack
from keepless.inference.embedded.gguf import Gguf, GgufError, open_gguf
from keepless.training.base import base_model
from keepless.training.examples import ExampleError, texts_of
from keepless.training.loop import DivergedError, Trainer
from keepless.training.order import Checkpoint, Event, Fault, Finished, Order, Prepared, Progress, TrainingError
from keepless.training.state import Place, StateError, fingerprint, pack_state, unpack_state
from keepless.training.tokens import Text, Tokens, tokens_of
from keepless.training.wire import NUMBERS, Kind, WireError, receive, send

__all__ = ["Told", "main", "train"]

_TOLD: Final = (Kind.ORDER, Kind.EXAMPLES, Kind.VALIDATION, Kind.RESUME)
_EVERY: Final = 200  # examples between two signs of life


class Told(msgspec.Struct, frozen=True):
    """What a run was told; what is empty was not given."""

    order: Order
    examples: Content
    validation: Content
    resume: Content


def main() -> None:
    """Do one run; ends the process."""
    connection = socket.socket(fileno=os.dup(0))
    code = 1
    try:
        told = _told(connection)
        order = told.order
        limit = order.memory_mb * 1024 * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        try:
            for event in train(told, lambda: _asked(connection), lambda: _alive(order)):
                _tell(connection, event)
            code = 0
        except Exception as error:  # its text may quote an example: not passed on
            send(connection, Kind.FAULT, msgspec.json.encode(_fault(error)))
    except (WireError, msgspec.MsgspecError, MemoryError):
        pass  # whoever ordered it has gone, or will see that this process has
    finally:
        # Threads of libraries are not joined: they have nothing to save.
        os._exit(code)


def train(told: Told, asked: Callable[[], bool], alive: Callable[[], None]) -> Iterator[Event]:
    """One run. `asked`: whether a checkpoint is wanted now; `alive` is called every few seconds at least.

    Raises `TrainingError`, `DivergedError`, `MemoryError`, `RuntimeError`.
    """
    order = told.order
    alive()
    gguf = _opened(order)
    examples, validation = (one.reveal(Purpose.TRAIN) for one in (told.examples, told.validation))
    run = fingerprint(order, examples, validation)
    try:
        base, tokens = base_of(gguf), tokens_of(gguf)
        count, cut, texts = _texts(examples, tokens, order.context, alive)
        _, _, unseen = _texts(validation, tokens, order.context, alive)
        if not texts:
            raise TrainingError(Fault.EXAMPLES_UNUSABLE)
        trainer = Trainer(base_model(gguf, base), tokens.pad, order, texts, alive)
    except GgufError:
        raise TrainingError(Fault.BASE_NOT_TUNABLE) from None
    except ExampleError:
        raise TrainingError(Fault.EXAMPLES_UNUSABLE) from None
    if told.resume.size:
        _go_on(trainer, told.resume, run)
    size = sum(len(text.tokens) for text in texts)
    yield Prepared(examples=count, sequences=len(texts), tokens=size, cut=cut, steps=trainer.total)
    saved = time.monotonic()
    while trainer.step < trainer.total:
        alive()
        loss, accuracy = trainer.advance()
        valid = trainer.measure(unseen) if unseen and trainer.epoch_ends else (None, None)
        yield Progress(
            step=trainer.step,
            total=trainer.total,
            loss=loss,
            token_accuracy=accuracy,
            tokens=trainer.tokens,
            valid_loss=valid[0],
            valid_token_accuracy=valid[1],
        )
        due = trainer.step < trainer.total and time.monotonic() - saved >= order.checkpoint_seconds
        if asked() or due:
            place = Place(run=run, step=trainer.step, tokens=trainer.tokens)
            yield Checkpoint(step=trainer.step, content=Content(pack_state(trainer.state(), place)))
            saved = time.monotonic()
    archive = pack(trainer.adapter(), r=order.r, alpha=order.alpha, base=order.base)
    yield Finished(step=trainer.step, tokens=trainer.tokens, content=Content(archive))


def _told(connection: socket.socket) -> Told:
    frames = [receive(connection) for _ in _TOLD]
    if tuple(kind for kind, _ in frames) != _TOLD:
        raise WireError
    order = msgspec.json.decode(frames[0][1], type=Order)
    return Told(order, *(Content(bytes(payload)) for _, payload in frames[1:]))


def _opened(order: Order) -> Gguf:
    """The base model's file, which must be the pinned one. Raises `TrainingError`."""
    try:
        if order.sha256 is not None:
            with Path(order.weights).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != order.sha256:
                    raise TrainingError(Fault.WEIGHTS_CHANGED)
        return open_gguf(order.weights)
    except OSError:
        raise TrainingError(Fault.WEIGHTS_MISSING) from None
    except GgufError:
        raise TrainingError(Fault.BASE_NOT_TUNABLE) from None


def _texts(data: bytes, tokens: Tokens, context: int, alive: Callable[[], None]) -> tuple[int, int, list[Text]]:
    """How many examples there are, how many of their texts were cut, and the texts in which something is learned."""
    found, count, cuts = [], 0, 0
    for line in data.splitlines():
        if not line.strip():
            continue
        count += 1
        if count % _EVERY == 0:
            alive()
        for pieces in texts_of(line, tokens.render):
            text, cut = tokens.text(pieces, context)
            cuts += cut
            if text.learned[1:].any():
                found.append(text)
    return count, cuts, found


def _go_on(trainer: Trainer, resume: Content, run: str) -> None:
    try:
        tensors, place = unpack_state(resume.reveal(Purpose.TRAIN), run)
        trainer.go_on(tensors, place.step, place.tokens)
    except (StateError, KeyError, RuntimeError):
        raise TrainingError(Fault.CHECKPOINT_UNFIT) from None


def _tell(connection: socket.socket, event: Event) -> None:
    match event:
        case Prepared():
            send(connection, Kind.PREPARED, msgspec.json.encode(event))
        case Progress():
            send(connection, Kind.PROGRESS, msgspec.json.encode(event))
        case Checkpoint():
            send(connection, Kind.CHECKPOINT, NUMBERS.pack(event.step, 0), event.content.reveal(Purpose.TRAIN))
        case Finished():
            numbers = NUMBERS.pack(event.step, event.tokens)
            send(connection, Kind.FINISHED, numbers, event.content.reveal(Purpose.TRAIN))


def _asked(connection: socket.socket) -> bool:
    """Whether a checkpoint is asked for. Raises `WireError` when whoever ordered the run has gone."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    asked = False
    while poll.poll(0):
        kind, _ = receive(connection)
        asked = asked or kind is Kind.SAVE
    return asked


def _alive(order: Order) -> None:
    signal.setitimer(signal.ITIMER_REAL, order.stuck_seconds)


def _fault(error: Exception) -> Fault:
    # torch says in words alone that it got no memory, and who got none to read the base model with may say that it does
    # not hold together. What the process had by then says as much.
    most = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    full = most > resource.getrlimit(resource.RLIMIT_DATA)[0] // 2
    fault = error.fault if isinstance(error, TrainingError) else None
    unsure = isinstance(error, RuntimeError) or fault is Fault.BASE_NOT_TUNABLE
    if isinstance(error, MemoryError) or (unsure and full):
        return Fault.OUT_OF_MEMORY
    if fault is not None:
        return fault
    if isinstance(error, DivergedError):
        return Fault.DIVERGED
    return Fault.TRAINER_DIED


if __name__ == "__main__":
    main()
