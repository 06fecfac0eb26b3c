"""The table of voices."""

import pytest

from keepless.inference.embedded.voices import ALIASES, VOICES, voice_of

# As the official client names them.
OPENAI = {"alloy", "ash", "ballad", "coral", "echo", "fable", "onyx", "nova", "sage", "shimmer", "verse", "marin"} | {
    "cedar"
}


def test_every_name_of_openai_s_is_answered_by_a_voice_of_ours() -> None:
    assert set(ALIASES) == OPENAI
    assert set(ALIASES.values()) <= set(VOICES)
    assert not set(ALIASES) & set(VOICES)


@pytest.mark.parametrize(("name", "voice"), [("slt", "slt"), ("fable", "awb"), ("kal16", None), ("", None)])
def test_which_voice_answers(name: str, voice: str | None) -> None:
    assert voice_of(name) == voice
