"""What is read of an upstream's answers, and that the rest is left alone."""

import msgspec
import pytest

from keepless.gateway.media_shapes import SpeechEvent, Vectors


def test_members_that_are_not_read_may_be_anything() -> None:
    assert len(msgspec.json.decode(b'{"data":[{},1],"x":[{}]}', type=Vectors).data) == 2
    assert msgspec.json.decode(b'{"type":"a","audio":7}', type=SpeechEvent).type == "a"


def test_what_is_read_must_be_there() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"usage":{}}', type=Vectors)
