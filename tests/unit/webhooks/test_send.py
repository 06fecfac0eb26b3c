"""One attempt, against a real TLS server and against names that lead where they should not."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepless.outbound.pinned import Failure, OutboundError
from keepless.outbound.urls import target_of
from keepless.webhooks.send import Sender
from tests.support.receiver import Receiver, receiving

HEADERS = {"webhook-id": "evt_a", "webhook-timestamp": "1", "webhook-signature": "v1,x"}


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    with receiving(tmp_path_factory.mktemp("receiver")) as found:
        yield found


@pytest.fixture(autouse=True)
def _fresh(receiver: Receiver) -> None:
    receiver.told.clear()
    receiver.statuses.clear()
    receiver.raw = None


def post(sender: Sender, url: str) -> int:
    return asyncio.run(sender.post(target_of(url, allow_private=True), HEADERS, b"{}"))


def failure(sender: Sender, url: str) -> Failure:
    with pytest.raises(OutboundError) as undeliverable:
        post(sender, url)
    return undeliverable.value.failure


def leads_to(*addresses: str) -> object:
    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return list(addresses)

    resolve.asked = asked
    return resolve


@pytest.mark.parametrize("status", [200, 204, 301, 307, 404, 500])
def test_the_status_is_the_answer_and_nothing_is_followed(receiver: Receiver, status: int) -> None:
    receiver.statuses.append(status)
    sender = Sender(allow_private=True, context=receiver.context)
    assert post(sender, receiver.url) == status
    (told,) = receiver.told
    assert (told.path, told.body) == ("/hook?of=them", b"{}")
    assert told.headers["host"] == f"localhost:{receiver.port}"
    assert told.headers["content-type"] == "application/json"
    assert {name: told.headers[name] for name in HEADERS} == HEADERS


def test_a_name_is_resolved_once_and_the_connection_goes_to_that_address(receiver: Receiver) -> None:
    resolve = leads_to("127.0.0.1", "127.0.0.2")
    sender = Sender(allow_private=True, context=receiver.context, resolve=resolve)
    assert post(sender, receiver.url) == 200
    assert resolve.asked == ["localhost"]


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["10.0.0.1"], ["::ffff:8.8.8.8"], ["169.254.169.254"]]
)
def test_a_public_name_that_leads_inside_is_refused(receiver: Receiver, addresses: list[str]) -> None:
    sender = Sender(context=receiver.context, resolve=leads_to(*addresses))
    assert failure(sender, f"https://example.com:{receiver.port}/") is Failure.ADDRESS_REFUSED
    assert receiver.told == []


def test_private_names_are_refused_after_resolution_by_the_real_resolver(receiver: Receiver) -> None:
    assert failure(Sender(context=receiver.context), receiver.url) is Failure.ADDRESS_REFUSED
    assert receiver.told == []


@pytest.mark.parametrize("found", [[], ["not an address"]])
def test_a_name_without_an_address(found: list[str]) -> None:
    assert failure(Sender(resolve=leads_to(*found)), "https://example.com/") is Failure.UNRESOLVED


def test_a_certificate_of_nobody_we_trust_or_for_another_name(receiver: Receiver) -> None:
    assert failure(Sender(allow_private=True), receiver.url) is Failure.CERTIFICATE
    sender = Sender(allow_private=True, context=receiver.context, resolve=leads_to("127.0.0.1"))
    assert failure(sender, f"https://example.com:{receiver.port}/") is Failure.CERTIFICATE
    assert receiver.told == []


def test_nobody_listens() -> None:
    assert failure(Sender(allow_private=True), "https://127.0.0.1:1/") is Failure.UNREACHABLE


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", Failure.UNREACHABLE),
        (b"hello\r\n", Failure.MALFORMED),
        (b"HTTP/1.1 999 x\r\n", Failure.MALFORMED),
        (b"HTTP/1.1 200" + b"x" * 10_000 + b"\r\n", Failure.MALFORMED),
    ],
)
def test_an_answer_that_is_none(receiver: Receiver, raw: bytes, expected: Failure) -> None:
    receiver.raw = raw
    assert failure(Sender(allow_private=True, context=receiver.context), receiver.url) is expected


def test_a_silent_server_is_left(tmp_path: Path) -> None:
    with receiving(tmp_path) as receiver:
        receiver.silent = threading.Event()
        sender = Sender(allow_private=True, context=receiver.context, timeout_s=0.5)
        assert failure(sender, receiver.url) is Failure.TIMEOUT
