"""Signing: the official SDK is the judge."""

import time

import openai
import pytest

from keepless.ids import Id
from keepless.webhooks.signature import Secrets, WrongKeyringError, headers_of, new_salt, shown

CLIENT = openai.OpenAI(api_key="x", base_url="http://127.0.0.1:1")
BODY = b'{"id":"evt_a","object":"event","type":"batch.completed","created_at":1,"data":{"id":"batch_b"}}'


def test_the_sdk_verifies_and_unwraps() -> None:
    secret = Secrets(lambda: b"k" * 32).secret(Id("hook_a"), new_salt())
    headers = headers_of([secret], Id("evt_a"), time.time_ns() // 1_000_000, BODY)
    event = CLIENT.webhooks.unwrap(BODY, headers, secret=shown(secret))
    assert (event.type, event.data.id, event.id) == ("batch.completed", "batch_b", "evt_a")


def test_any_other_body_id_time_or_secret_is_refused() -> None:
    secret = b"s" * 32
    now_ms = time.time_ns() // 1_000_000
    good = headers_of([secret], Id("evt_a"), now_ms, BODY)
    later = {**good, "webhook-timestamp": str(now_ms // 1000 + 1)}
    for body, headers, key in (
        (BODY + b" ", good, secret),
        (BODY, {**good, "webhook-id": "evt_b"}, secret),
        (BODY, later, secret),
        (BODY, good, b"t" * 32),
        (BODY, headers_of([secret], Id("evt_a"), now_ms - 301_000, BODY), secret),  # replayed later
    ):
        with pytest.raises(openai.InvalidWebhookSignatureError):
            CLIENT.webhooks.verify_signature(body, headers, secret=shown(key))


def test_while_a_secret_is_rotated_both_verify() -> None:
    headers = headers_of([b"n" * 32, b"o" * 32], Id("evt_a"), time.time_ns() // 1_000_000, BODY)
    for key in (b"n" * 32, b"o" * 32):
        CLIENT.webhooks.verify_signature(BODY, headers, secret=shown(key))


def test_a_secret_follows_from_key_endpoint_and_salt() -> None:
    secrets, salt = Secrets(lambda: b"k" * 32), new_salt()
    one = secrets.secret(Id("hook_a"), salt)
    assert one == secrets.secret(Id("hook_a"), salt)
    assert len({one, secrets.secret(Id("hook_b"), salt), secrets.secret(Id("hook_a"), new_salt())}) == 3
    assert one != Secrets(lambda: b"l" * 32).secret(Id("hook_a"), salt)


def test_another_keyring_is_noticed() -> None:
    salt = new_salt()
    hint = shown(Secrets(lambda: b"k" * 32).secret(Id("hook_a"), salt))[-4:]
    assert Secrets(lambda: b"k" * 32).checked(Id("hook_a"), salt, hint)
    with pytest.raises(WrongKeyringError):
        Secrets(lambda: b"l" * 32).checked(Id("hook_a"), salt, hint)
