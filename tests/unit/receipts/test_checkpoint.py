"""Checkpoints: the C2SP text, and only the one spelling of it under the one key."""

import pytest

from keepless.receipts.checkpoint import (
    Ed25519Signer,
    NoteError,
    TreeHead,
    VerifierKey,
    decode_base64,
    key_id,
    open_note,
    sign_note,
)

SIGNER = Ed25519Signer(bytes(range(32)))
KEY = VerifierKey("example.com/log", SIGNER.public_key)
HEAD = TreeHead("example.com/log", 12, bytes(range(32, 64)))


def test_the_text_of_a_checkpoint() -> None:
    note = sign_note(HEAD, SIGNER)
    lines = note.split("\n")
    assert lines[:4] == ["example.com/log", "12", "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=", ""]
    assert lines[4].startswith("\u2014 example.com/log ")
    assert open_note(note, KEY) == HEAD


def test_a_key_text_from_the_specification_is_read() -> None:
    # The example key of Go's golang.org/x/mod/sumdb/note documentation.
    text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    key = VerifierKey.parse(text)
    assert key.name == "PeterNeumann"
    assert key.text() == text
    assert key_id(key.name, key.public_key).hex() == "c74f20a3"


def test_a_key_text_comes_back() -> None:
    assert VerifierKey.parse(f"{KEY}\n") == KEY


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.com/log",
        "example.com/log+00000000+AQ==",
        KEY.text().replace("example", "examplf"),
        KEY.text()[:-4] + "AAA=",
        KEY.text()[:-1],
        KEY.text() + "=",
        "+".join(["example.com/log", "00000000", KEY.text().split("+", 2)[2]]),
    ],
)
def test_what_is_no_key_text_is_refused(text: str) -> None:
    with pytest.raises(NoteError):
        VerifierKey.parse(text)


def test_every_changed_character_of_a_checkpoint_is_refused() -> None:
    note = sign_note(HEAD, SIGNER)
    for at, letter in enumerate(note):
        for other in ("A", "0", "\n", " ", "\u2014"):
            if other != letter:
                with pytest.raises(NoteError):
                    open_note(note[:at] + other + note[at + 1 :], KEY)


NOTE = sign_note(HEAD, SIGNER)
SIGNATURE = NOTE.split("\n")[4]
OTHER_SIGNER = Ed25519Signer(bytes(32))


@pytest.mark.parametrize(
    "note",
    [
        "",
        NOTE + SIGNATURE + "\n",
        NOTE[:-1],
        NOTE + "\n",
        NOTE.replace("\n12\n", "\n012\n"),
        NOTE.replace("\n12\n", "\n12\nextension\n"),
        sign_note(HEAD, OTHER_SIGNER),
        sign_note(TreeHead("example.com/other", 12, HEAD.root), SIGNER),
        sign_note(TreeHead("example.com/log", 12, b"short"), SIGNER),
    ],
)
def test_any_other_note_is_refused(note: str) -> None:
    with pytest.raises(NoteError):
        open_note(note, KEY)


@pytest.mark.parametrize("origin", ["", "a b", "a+b", "a\nb", "\u00e9"])
def test_an_origin_that_cannot_name_a_key_is_not_signed(origin: str) -> None:
    with pytest.raises(NoteError):
        sign_note(TreeHead(origin, 1, bytes(32)), SIGNER)


@pytest.mark.parametrize("text", ["A", "AA", "AB==", "A A=", "AA==\n", "AA==AA==", "\u00e9A==", "_-8="])
def test_base64_has_one_spelling(text: str) -> None:
    with pytest.raises(NoteError):
        decode_base64(text)
