"""The base model's tokenizer and chat template, out of the GGUF file that the engine itself reads.

Holds: `Tokens`, `Text` (one text to learn from, as numbers), `tokens_of`. Leaves out: which texts there are (examples).
Only kinds of tokenizers that were compared with the engine's are taken: byte-level BPE as SmolLM splits words.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from keepless.inference.embedded.gguf import Gguf, GgufError
from keepless.inference.embedded.inert import Inert, control_words
from keepless.inference.embedded.tunable import TOKENIZERS
from keepless.training.examples import Piece

__all__ = ["Text", "Tokens", "tokens_of"]

_CONTROL: Final = 3
_USER_DEFINED: Final = 4


@dataclass(frozen=True, slots=True)
class Text:
    """Tokens, and for each whether the model learns to say it."""

    tokens: np.ndarray[Any, np.dtype[np.int32]]
    learned: np.ndarray[Any, np.dtype[np.bool_]]


class Tokens:
    """Text into tokens, messages into text."""

    def __init__(self, fields: dict[str, Any]) -> None:
        names = fields["tokenizer.ggml.tokens"]
        tokenizer = Tokenizer(
            models.BPE(
                vocab={name: number for number, name in enumerate(names)},
                merges=[tuple(merge.split(" ", 1)) for merge in fields["tokenizer.ggml.merges"]],
            )
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        tokenizer.decoder = decoders.ByteLevel()
        kinds = fields["tokenizer.ggml.token_type"]
        special = [name for name, kind in zip(names, kinds, strict=True) if kind in (_CONTROL, _USER_DEFINED)]
        tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
        self.pad: Final[int] = fields.get("tokenizer.ggml.padding_token_id", fields["tokenizer.ggml.eos_token_id"])
        self._tokenizer: Final = tokenizer
        self._inert: Final = Inert(control_words(zip(names, kinds, strict=True), fields["tokenizer.chat_template"]))
        self._template: Final = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            chat_template=fields["tokenizer.chat_template"],
            bos_token=names[fields["tokenizer.ggml.bos_token_id"]],
            eos_token=names[fields["tokenizer.ggml.eos_token_id"]],
        )

    def render(self, messages: list[dict[str, Any]], answer: bool) -> str:
        """Messages as one text, as the engine has it."""
        told = [{**message, "content": self._inert(message["content"])} for message in messages]
        return str(self._template.apply_chat_template(told, add_generation_prompt=answer, tokenize=False))

    def encode(self, text: str) -> list[int]:
        """Tokens of a text; names of special tokens in it are those tokens, as they are to the engine."""
        found: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return found

    def text(self, pieces: Iterable[Piece], context: int) -> tuple[Text, bool]:
        """One text, and whether it was longer than the context and has been cut."""
        tokens: list[int] = []
        learned: list[bool] = []
        for piece in pieces:
            more = self.encode(piece.text)
            tokens += more
            learned += [piece.learned] * len(more)
        cut = len(tokens) > context
        return Text(np.array(tokens[:context], np.int32), np.array(learned[:context], np.bool_)), cut


def tokens_of(gguf: Gguf) -> Tokens:
    """Raises `GgufError` for a tokenizer that is not known to be the engine's."""
    kind = (gguf.fields.get("tokenizer.ggml.model"), gguf.fields.get("tokenizer.ggml.pre"))
    if kind not in TOKENIZERS or "tokenizer.chat_template" not in gguf.fields:
        raise GgufError
    try:
        return Tokens(gguf.fields)
    except Exception:  # the library raises just that
        raise GgufError from None
