"""The table of sound formats."""

from keepless.inference.embedded.formats import FORMATS, RATES


def test_openai_s_and_groq_s_formats_are_there() -> None:
    assert set(FORMATS) == {"mp3", "opus", "aac", "flac", "wav", "pcm"} | {"flac", "mp3", "mulaw", "ogg", "wav"}


def test_defaults_are_rates_of_the_format() -> None:
    for kind in FORMATS.values():
        assert set(kind.rates) <= set(RATES)
        assert kind.default_rate is None or kind.default_rate in kind.rates
        assert 16_000 in kind.rates


def test_pcm_is_openai_s_because_nothing_in_it_says_its_rate() -> None:
    assert FORMATS["pcm"].default_rate == 24_000
