"""The base model in torch says what the engine says."""

from pathlib import Path

import httpx2
import numpy as np
import pytest
import torch

from keepless.inference.embedded.adapter import base_of
from keepless.inference.embedded.engine import weights_of
from keepless.inference.embedded.gguf import GgufError, open_gguf
from keepless.training.base import base_model
from keepless.training.tokens import tokens_of
from tests.support.engine import MODEL, engine
from tests.support.tiny_gguf import fields, gguf_bytes, tensors, tiny

ASKED = [{"role": "user", "content": "What is the capital of France? One sentence."}]


def test_the_next_words_are_the_engine_s(tmp_path: Path) -> None:
    """Its arithmetic is coarser (activations of 8 bits), so probabilities are near each other and not equal."""
    gguf = open_gguf(weights_of(MODEL)[0])
    model, tokens = base_model(gguf, base_of(gguf)).eval(), tokens_of(gguf)
    prompt = tokens.encode(tokens.render(ASKED, answer=True))
    with torch.no_grad():
        ours = torch.log_softmax(model(torch.tensor([prompt])).logits[0, -1], -1).numpy()
    with engine(tmp_path) as process:
        transport = httpx2.HTTPTransport(uds=str(process.socket))
        headers = {"authorization": f"Bearer {process.key}"}
        body = {"prompt": prompt, "n_predict": 1, "temperature": 0, "n_probs": 5, "post_sampling_probs": False}
        with httpx2.Client(transport=transport, base_url="http://engine", headers=headers, timeout=60) as client:
            theirs = client.post("/completion", json=body).json()["completion_probabilities"][0]["top_logprobs"]
    assert int(np.argmax(ours)) == theirs[0]["id"]
    for one in theirs[:3]:
        assert ours[one["id"]] == pytest.approx(one["logprob"], abs=0.4)


def test_nothing_in_the_file_is_left_out(tmp_path: Path) -> None:
    gguf = open_gguf(tiny(tmp_path))
    model = base_model(gguf, base_of(gguf))
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert not any(parameter.requires_grad for parameter in model.parameters())
    numbers = tensors()
    untied = numbers | {"output.weight": numbers["token_embd.weight"] * 2}
    (tmp_path / "untied").write_bytes(gguf_bytes(fields(), untied))
    gguf = open_gguf(str(tmp_path / "untied"))
    head = base_model(gguf, base_of(gguf)).lm_head.weight
    assert (head.numpy() == untied["output.weight"]).all()
    for name in ("rope_freqs.weight", "blk.0.attn_q.bias"):
        (tmp_path / "more").write_bytes(gguf_bytes(fields(), numbers | {name: numbers["output_norm.weight"]}))
        more = open_gguf(str(tmp_path / "more"))
        with pytest.raises(GgufError):
            base_model(more, base_of(more))
