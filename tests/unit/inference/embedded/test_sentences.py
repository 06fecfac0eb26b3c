"""Where a text is cut before it is spoken, and what of it a voice can read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepless.inference.embedded.sentences import LONGEST_PIECE, pieces, plain


def cut(text: str) -> list[str]:
    return list(pieces(plain(text)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("  \n ", ""),
        ("...!?", ""),
        ("你好", ""),
        ("🎉", ""),
        ("Hello", "Hello."),
        ("Café Zürich, \u201cnaïve\u201d \u2013 it\u2019s Ærø", 'Cafe Zurich, "naive" - it\'s Aero.'),
        ("5 € and 3 £", "5 euro and 3 pound."),
        ("Hello 你好 there", "Hello there."),
        ("A title\n\nA text", "A title. A text."),
        ("one\ntwo", "one two."),
        ("a\x00b\x1b[31m", "a b [31m."),
        ("。Hello\uff01", ". Hello!"),
    ],
)
def test_what_an_english_voice_can_read(text: str, expected: str) -> None:
    assert plain(text) == expected


def test_the_first_piece_is_one_sentence_and_the_next_ones_grow() -> None:
    found = cut("This is one sentence of some length. " * 100)
    assert found[0] == "This is one sentence of some length."
    sizes = [len(piece) for piece in found[:-1]]
    assert sizes == sorted(sizes) or max(sizes) - sizes[-1] < 40
    assert max(sizes) > LONGEST_PIECE // 2


@pytest.mark.parametrize(
    "text",
    ["Dr. Smith met Mrs. Jones, e.g. at 5 p.m. on St. John street.", "J. S. Bach wrote it.", "It is 3.14 or so."],
)
def test_an_abbreviation_is_no_end(text: str) -> None:
    assert cut(text) == [text]


def test_sentences_are_told_apart_by_every_usual_mark() -> None:
    assert cut("One! Two?")[0] == "One!"
    assert cut("One。Two")[0] == "One."
    assert cut('"One." Two.')[0] == '"One."'


def test_a_sentence_without_end_is_cut_at_a_comma_or_between_words() -> None:
    assert all(piece.endswith(",") for piece in cut("word, " * 400)[:-1])
    assert all(piece.endswith("word") for piece in cut("word " * 400)[:-1])


def test_a_word_that_no_language_has_is_cut_too() -> None:
    found = cut("a" * 4096)
    assert max(len(word) for piece in found for word in piece.split()) <= 41


@given(st.text(max_size=3000) | st.text(alphabet="ab .!?,\n(;$", max_size=3000))
def test_whatever_comes_pieces_are_bounded_readable_and_lose_nothing_that_is_said(text: str) -> None:
    whole = plain(text)
    found = list(pieces(whole))
    for piece in found:
        assert 0 < len(piece) <= LONGEST_PIECE
        assert piece.isascii()
        assert piece.isprintable()
        assert any(character.isalnum() for character in piece)
        assert max(map(len, piece.split())) <= 41
    spoken = "".join(filter(str.isalnum, "".join(found)))
    assert spoken == "".join(filter(str.isalnum, whole))
    assert bool(found) == bool(whole)
