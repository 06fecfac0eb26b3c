"""The headers that the gateway and the engines for speech and embeddings agree on."""

import msgspec
import pytest

from keepless.inference.embedded.asks import EmbeddingHeader, SpeechHeader


@pytest.mark.parametrize(
    "header",
    [
        SpeechHeader(format="wav", rate=16000, voice="slt", speed=1.0, events=False),
        EmbeddingHeader(model="m", base64=True, dimensions=None),
    ],
)
def test_what_is_written_is_read(header: msgspec.Struct) -> None:
    assert msgspec.json.decode(msgspec.json.encode(header), type=type(header)) == header
