"""Every parameter of audio/speech: what passes, what is refused, and that no refusal quotes a value."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keepless.config import Engine, ModelConfig
from keepless.errors import Code, Problem
from keepless.gateway.speech_params import CAPABILITIES, PARAMETERS, SpeechRules
from keepless.inference.embedded.formats import FORMATS
from keepless.inference.embedded.voices import ALIASES, VOICES
from keepless.policy.controls import RequestControls
from tests.support.outcome import outcome

M = "MARKER"
BASE = {"model": "m", "input": M, "voice": "slt"}
ALL = SpeechRules(ModelConfig(id="m", engine=Engine.OPENAI, base_url="http://x", extra_params=["cfg"]), None)
OURS = SpeechRules(ModelConfig(id="m", engine=Engine.FLITE), CAPABILITIES)
NONE = SpeechRules(ModelConfig(id="m", engine=Engine.FLITE), frozenset())

GOOD: list[dict[str, Any]] = [
    {},
    {"speed": 0.25},
    {"speed": 4},
    {"sample_rate": 48000},
    {"sample_rate": 8000},
    {"stream_format": "audio"},
    {"stream_format": "sse"},
    {"instructions": ""},
    *({"response_format": name} for name in FORMATS),
    *({"voice": name} for name in (*VOICES, *ALIASES)),
    {"voice": {"id": "slt"}},
]
BAD: list[tuple[dict[str, Any], str]] = [
    ({"input": None}, "input"),
    ({"input": ""}, "input"),
    ({"input": " \n "}, "input"),
    ({"input": 1}, "input"),
    ({"input": [M]}, "input"),
    ({"input": M * 1000}, "input"),
    ({"voice": None}, "voice"),
    ({"voice": 1}, "voice"),
    ({"voice": {}}, "voice.id"),
    ({"voice": {"id": 1}}, "voice.id"),
    ({"voice": {"id": "a", M: 1}}, "voice"),
    ({"voice": M * 60}, "voice"),
    ({"response_format": M}, "response_format"),
    ({"response_format": 1}, "response_format"),
    ({"speed": 0.2}, "speed"),
    ({"speed": 4.1}, "speed"),
    ({"speed": M}, "speed"),
    ({"speed": True}, "speed"),
    ({"sample_rate": 11025}, "sample_rate"),
    ({"sample_rate": M}, "sample_rate"),
    ({"sample_rate": 10**9}, "sample_rate"),
    ({"instructions": 1}, "instructions"),
    ({"stream_format": M}, "stream_format"),
    ({"store": True}, "store"),
]


def problem(rules: SpeechRules, body: dict[str, Any]) -> Problem:
    with pytest.raises(Problem) as caught:
        rules.check(body, None)
    assert caught.value.status == 400
    assert M not in caught.value.message
    return caught.value


@pytest.mark.parametrize("more", GOOD)
@pytest.mark.parametrize("rules", [ALL, OURS])
def test_what_may_be_asked(rules: SpeechRules, more: dict[str, Any]) -> None:
    checked = rules.check({**BASE, **more}, None)
    assert checked.body == {**BASE, **more}
    assert checked.stream is True
    assert checked.format == more.get("response_format", "mp3")
    assert checked.events is (more.get("stream_format") == "sse")
    assert checked.characters == len(M)


@pytest.mark.parametrize(("more", "param"), BAD)
@pytest.mark.parametrize("rules", [ALL, OURS])
def test_what_nobody_is_asked(rules: SpeechRules, more: dict[str, Any], param: str) -> None:
    assert problem(rules, {**BASE, **more}).param == param


@pytest.mark.parametrize("required", ["input", "voice"])
def test_what_must_be_there(required: str) -> None:
    found = problem(OURS, {name: value for name, value in BASE.items() if name != required})
    assert (found.code, found.param) == (Code.MISSING_PARAMETER, required)


def test_the_longest_text_is_the_operator_s_word_and_named() -> None:
    rules = SpeechRules(ModelConfig(id="m", engine=Engine.FLITE, max_input_characters=10), CAPABILITIES)
    rules.check({**BASE, "input": "é" * 10}, None)
    assert "at most 10 characters" in problem(rules, {**BASE, "input": "é" * 11}).message


def test_a_voice_that_is_not_there_is_refused_with_those_that_are() -> None:
    for voice in (M, {"id": M}, "kal16", ""):
        message = problem(OURS, {**BASE, "voice": voice}).message
        assert all(name in message for name in (*VOICES, *ALIASES))
    assert ALL.check({**BASE, "voice": "fritz"}, None).voice == "fritz"  # an upstream's voices are its own


def test_a_name_of_openai_s_is_one_of_our_voices() -> None:
    assert OURS.check({**BASE, "voice": "alloy"}, None).voice == ALIASES["alloy"]
    assert ALL.check({**BASE, "voice": "alloy"}, None).voice == "alloy"


def test_opus_has_rates_of_its_own() -> None:
    assert problem(OURS, {**BASE, "response_format": "opus", "sample_rate": 44100}).param == "sample_rate"
    ALL.check({**BASE, "response_format": "opus", "sample_rate": 44100}, None)


@pytest.mark.parametrize(("name", "rate"), [("pcm", 24000), ("mulaw", 8000), ("wav", None), ("mp3", None)])
def test_rates_that_are_not_asked_for(name: str, rate: int | None) -> None:
    assert OURS.check({**BASE, "response_format": name}, None).rate == rate
    assert OURS.check({**BASE, "response_format": name, "sample_rate": 16000}, None).rate == 16000


@pytest.mark.parametrize(
    ("accept", "expected"),
    [(None, "mp3"), (b"audio/wav", "wav"), (b" Audio/WAV ", "wav"), (b"application/octet-stream", "mp3"), (b"", "mp3")],
)
def test_who_accepts_wav_and_asks_for_no_format_gets_it(accept: bytes | None, expected: str) -> None:
    assert OURS.check({**BASE}, accept).format == expected
    assert OURS.check({**BASE, "response_format": "flac"}, accept).format == "flac"


def test_what_a_model_cannot_do_is_refused_in_groq_s_words() -> None:
    for more in ({"speed": 2}, {"sample_rate": 8000}, {"stream_format": "sse"}, {"instructions": "x"}):
        assert problem(NONE, {**BASE, **more}).code is Code.UNSUPPORTED_PARAMETER
    NONE.check({**BASE, "speed": 1.0, "stream_format": "audio", "instructions": ""}, None)


def test_switches_and_nulls_are_taken_out() -> None:
    checked = OURS.check({**BASE, "speed": None, "store": False}, None)
    assert checked.body == BASE
    assert checked.controls == RequestControls(keep_nothing=True)


def test_every_parameter_of_the_official_clients_is_in_the_table() -> None:
    openai = {"model", "input", "voice", "instructions", "response_format", "speed", "stream_format"}
    groq = {"model", "input", "voice", "response_format", "sample_rate", "speed"}
    assert openai | groq <= set(PARAMETERS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([*PARAMETERS, "other"]), JSON, max_size=8), st.none() | st.binary(max_size=12))
def test_whatever_comes_is_checked_or_refused_and_never_a_fault(body: dict[str, Any], accept: bytes | None) -> None:
    for rules in (ALL, OURS, NONE):
        outcome(lambda rules=rules: rules.check(dict(body), accept))
