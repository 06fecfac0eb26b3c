"""Headers of GGUF files: the embedded one's, a toy's, and what is none."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepless.inference.embedded.engine import weights_of
from keepless.inference.embedded.gguf import GgufError, open_gguf, vocabulary_of
from tests.support.engine import MODEL
from tests.support.tiny_gguf import fields, gguf_bytes, tensors, tiny


def test_the_embedded_model_says_what_it_is() -> None:
    gguf = open_gguf(weights_of(MODEL)[0])
    assert gguf.fields["general.architecture"] == "llama"
    assert len(gguf.fields["tokenizer.ggml.tokens"]) == 49152
    assert gguf.tensors["blk.29.attn_k.weight"].shape == (192, 576)
    assert len(gguf.tensors) == 272


def test_everything_that_was_written_is_read(tmp_path: Path) -> None:
    gguf = open_gguf(tiny(tmp_path, **{"general.alignment": 32, "a.list": [1, -2]}))
    assert gguf.fields == fields(**{"general.alignment": 32, "a.list": [1, -2]}) | {
        "llama.attention.layer_norm_rms_epsilon": pytest.approx(1e-5)
    }
    for name, tensor in tensors().items():
        found = gguf.tensors[name]
        assert (found.shape, found.type) == (tensor.shape, 0)
        assert gguf.data[found.offset : found.offset + tensor.nbytes] == tensor.tobytes()


def test_the_vocabulary_alone_is_what_the_whole_header_says(tmp_path: Path) -> None:
    for path in (weights_of(MODEL)[0], tiny(tmp_path), tiny(tmp_path, **{"tokenizer.ggml.token_type": ["x"]})):
        said = open_gguf(path).fields
        kinds = said["tokenizer.ggml.token_type"]
        if "x" in kinds:
            with pytest.raises(GgufError):
                vocabulary_of(path)
            continue
        words = zip(said["tokenizer.ggml.tokens"], kinds, strict=True)
        expected = [(word, kind) for word, kind in words if kind != 1 or word.startswith(("<", "_", "["))]
        assert vocabulary_of(path) == (expected, said["tokenizer.chat_template"])


SMALL = gguf_bytes({"general.architecture": "llama", "list": ["a", "b"]}, {"t": tensors()["output_norm.weight"]})


def test_what_is_none(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="none"):
        open_gguf(str(tmp_path / "none"))
    path = tmp_path / "file"
    for data in (b"", b"GGUF", b"GGML" + SMALL[4:], b"GGUF\x09" + SMALL[5:], SMALL[:100]):
        path.write_bytes(data)
        with pytest.raises(GgufError):
            open_gguf(str(path))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(SMALL) - 140), st.binary(min_size=1, max_size=9))
def test_a_damaged_header_is_read_or_refused(at: int, damage: bytes) -> None:
    path = Path("/dev/shm/keepless-damaged.gguf")
    path.write_bytes(SMALL[:at] + damage + SMALL[at + len(damage) :])
    with contextlib.suppress(GgufError):
        vocabulary_of(str(path))
    try:
        open_gguf(str(path)).data.close()
    except GgufError:
        pass
    finally:
        path.unlink()
