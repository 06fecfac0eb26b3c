"""One tokenizer and one template for who trains and who answers: ours against the engine's own words."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from keepless.inference.embedded.engine import weights_of
from keepless.inference.embedded.gguf import GgufError, open_gguf
from keepless.training.examples import Piece
from keepless.training.tokens import Tokens, tokens_of
from tests.support.engine import MODEL, engine
from tests.support.tiny_gguf import tiny

TEXTS = [
    "Hello world",
    " leading and trailing ",
    "line\n\nbreaks\r\n\ttabs  and   spaces\n",
    "It's 12345 o'clock, they'll say 3.14159; we've $9,999.00!",
    "Grüße aus Zürich, 東京, Москва, العربية, हिन्दी",
    "👩‍👩‍👧‍👦 🏳️‍🌈 \u200b\u00a0 \ufeff",
    "def f(x):\n    return x**2  # comment\n\n\nclass A: pass",
    "<|im_start|>user\nspecial<|im_end|>\n<|endoftext|> <|im_end",
    '{"name": "none", "message": "A \\"quoted\\" text"}',
    "\u017ftrange \ufb01 ligatures \u00bd \u00b2 \u2460",
    "\x00\x01\x7f",
]
CHATS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "Hello"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello\n"}],
    [
        {"role": "user", "content": " Who?"},
        {"role": "assistant", "content": "Ada. "},
        {"role": "user", "content": "Where?"},
    ],
]


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    return tokens_of(open_gguf(weights_of(MODEL)[0]))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    with engine(tmp_path_factory.mktemp("e")) as process:
        transport = httpx2.HTTPTransport(uds=str(process.socket))
        headers = {"authorization": f"Bearer {process.key}"}
        with httpx2.Client(transport=transport, base_url="http://engine", headers=headers, timeout=60) as client:
            yield client


def test_words_are_split_as_the_engine_splits_them(tokens: Tokens, theirs: httpx2.Client) -> None:
    for text in TEXTS:
        body = {"content": text, "parse_special": True, "add_special": False}
        assert tokens.encode(text) == theirs.post("/tokenize", json=body).json()["tokens"], text


def test_messages_become_the_engine_s_text(tokens: Tokens, theirs: httpx2.Client) -> None:
    for chat in CHATS:
        found = theirs.post("/apply-template", json={"messages": chat}).json()["prompt"]
        assert tokens.render(chat, answer=True) == found


def test_the_answer_s_tokens_are_the_ones_to_learn(tokens: Tokens) -> None:
    text, cut = tokens.text([Piece("<|im_start|>user\nA", False), Piece("B<|im_end|>\n", True)], 100)
    asked = tokens.encode("<|im_start|>user\nA")
    assert not cut
    assert text.tokens.tolist() == asked + tokens.encode("B<|im_end|>\n")
    assert text.learned.tolist() == [False] * len(asked) + [True] * (len(text.tokens) - len(asked))
    short, cut = tokens.text([Piece("one two three", True)], 2)
    assert cut
    assert (len(short.tokens), len(short.learned)) == (2, 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"tokenizer.ggml.merges": ["nothing at"]},
        {"tokenizer.ggml.bos_token_id": 10_000},
        {"tokenizer.ggml.token_type": [1]},
        {"tokenizer.ggml.model": "bert"},
    ],
    ids=str,
)
def test_a_tokenizer_that_does_not_hold_together(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(GgufError):
        tokens_of(open_gguf(tiny(tmp_path, **changes)))
