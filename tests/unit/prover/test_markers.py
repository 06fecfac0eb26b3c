"""Spoken marks: different words, chosen anew, in no text of ours."""

from pathlib import Path

from keepless.prover.markers import spoken

SOURCE = Path(__file__).parents[3] / "src"


def test_spoken_words_are_different_and_chosen_anew() -> None:
    chosen = [tuple(spoken(6)) for _ in range(20)]
    assert all(len(set(words)) == 6 for words in chosen)
    assert len(set(chosen)) > 1


def test_no_other_file_of_ours_says_them() -> None:
    texts = {path.name: path.read_text("utf-8").lower() for path in SOURCE.rglob("*.py")}
    for word in spoken(16):
        assert [name for name, text in texts.items() if word in text] == ["markers.py"]
