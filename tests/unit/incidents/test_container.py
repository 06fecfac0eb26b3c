"""The captured object's format."""

from typing import Any

import pytest

from keepless.content import Content, Purpose
from keepless.ids import Id
from keepless.incidents.container import ContainerError, pack, unpack
from keepless.usage.record import Endpoint

MAGIC = b"keepless-capture/1\n"
HOSTILE: Any = "tell me"


def test_what_is_packed_comes_back() -> None:
    packed = pack({"endpoint": Endpoint.CHAT, "n": 3}, Content(b'{"a":1}\n\x00'), Content(b"data: x\n\n"))
    again = unpack(packed.reveal(Purpose.CUSTOMER))
    assert again.header == {"endpoint": "chat.completions", "n": 3, "request_bytes": 9, "answer_bytes": 9}
    assert again.request.reveal(Purpose.CUSTOMER) == b'{"a":1}\n\x00'
    assert again.answer.reveal(Purpose.CUSTOMER) == b"data: x\n\n"


def test_the_literal_bytes() -> None:
    packed = pack({"request_id": Id("req_x")}, Content(b"Q"), None).reveal(Purpose.CUSTOMER)
    assert packed == MAGIC + b'{"answer_bytes":0,"request_bytes":1,"request_id":"req_x"}\nQ'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        MAGIC,
        MAGIC + b"{}\n",
        MAGIC + b"not json\n",
        MAGIC + b'{"answer_bytes":0,"request_bytes":1}\n',
        MAGIC + b'{"answer_bytes":0,"request_bytes":1}\nQQ',
        MAGIC + b'{"answer_bytes":1,"request_bytes":-1}\n',
        MAGIC + b'{"answer_bytes":0,"request_bytes":1.0}\nQ',
        MAGIC + b'{"answer_bytes":0,"request_bytes":true}\nQ',
        b"x" + MAGIC + b'{"answer_bytes":0,"request_bytes":0}\n',
    ],
)
def test_what_is_not_a_container_is_refused_without_an_echo(data: bytes) -> None:
    with pytest.raises(ContainerError) as caught:
        unpack(data)
    assert caught.value.__cause__ is None
    assert b"not json" not in caught.value.args[0].encode()


def test_a_header_takes_no_text() -> None:
    with pytest.raises(TypeError):
        pack(dict.fromkeys(["prompt"], HOSTILE), Content(b""), None)
