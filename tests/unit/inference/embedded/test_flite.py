"""Voices: real speech, and that a text is nowhere but in a pipe and in memory."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from keepless.inference.embedded import flite
from keepless.inference.embedded.flite import RATE, Flite, SpeechFailedError, Utterance
from keepless.inference.embedded.voices import VOICES
from tests.support.children import children

TEXT = "The quick brown fox jumps over the lazy dog."
SECRET = "marzipan zeppelin"


@pytest.fixture(scope="module")
def voices() -> Flite:
    return Flite()


def said(voices: Flite, *texts: str, voice: str = "slt", speed: float = 1.0) -> np.ndarray:
    return np.frombuffer(b"".join(voices.say(texts, voice=voice, speed=speed)), "<i2")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("voice", VOICES)
def test_every_voice_speaks(voices: Flite, voice: str) -> None:
    samples = said(voices, TEXT, voice=voice)
    assert 1.5 < len(samples) / RATE < 6
    assert np.abs(samples.astype(int)).max() > 2000


def test_pieces_come_in_their_order(voices: Flite) -> None:
    whole = said(voices, TEXT, "Hello there.", TEXT)
    parts = [said(voices, text) for text in (TEXT, "Hello there.", TEXT)]
    assert np.array_equal(whole, np.concatenate(parts))


@pytest.mark.parametrize("voice", ["slt", "kal"])
def test_speed_stretches_the_time(voices: Flite, voice: str) -> None:
    usual = len(said(voices, TEXT, voice=voice))
    assert len(said(voices, TEXT, voice=voice, speed=2.0)) == pytest.approx(usual / 2, rel=0.15)
    assert len(said(voices, TEXT, voice=voice, speed=0.5)) == pytest.approx(usual * 2, rel=0.15)


def test_the_next_piece_is_spoken_while_one_is_sent(voices: Flite, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []

    def texts():
        for text in (TEXT, "Two.", "Three."):
            taken.append(text)
            yield text

    blocks = voices.say(texts(), voice="slt", speed=1.0)
    next(blocks)
    assert taken == [TEXT, "Two."]
    blocks.close()


def test_ending_early_ends_the_processes_and_lets_everything_go(voices: Flite) -> None:
    before, others = descriptors(), children()
    blocks = voices.say([TEXT, TEXT, TEXT], voice="slt", speed=1.0)
    next(blocks)
    blocks.close()
    assert descriptors() == before
    assert children() == others


def test_a_voice_that_ends_badly_is_a_failure_and_leaves_nothing(tmp_path: Path) -> None:
    before = descriptors()
    program = tmp_path / "flite"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o700)
    with pytest.raises(SpeechFailedError):
        list(Flite(str(program)).say([TEXT, TEXT], voice="slt", speed=1.0))
    assert descriptors() == before


def test_a_piece_that_failed_is_said_again_from_its_beginning(voices: Flite, tmp_path: Path) -> None:
    before, others = descriptors(), children()
    tries, program = tmp_path / "tries", tmp_path / "flite"
    # The second piece fails once, after some of its sound.
    program.write_text(
        '#!/bin/sh\nread -r text\ncase "$text" in Two*)\n'
        f'  echo x >> {tries}\n  if [ "$(wc -l < {tries})" = 1 ]; then printf "half of it"; exit 3; fi;;\n'
        'esac\nprintf "%s\\n" "$text" | /usr/bin/flite "$@"\n'
    )
    program.chmod(0o700)
    assert np.array_equal(said(Flite(str(program)), TEXT, "Two.", "Three."), said(voices, TEXT, "Two.", "Three."))
    assert tries.read_text() == "x\nx\n"
    assert descriptors() == before
    assert children() == others


def test_a_voice_that_runs_away_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "flite"
    tries = tmp_path / "tries"
    program.write_text(f"#!/bin/sh\necho x >> {tries}\nwhile :; do :; done\n")
    program.chmod(0o700)
    monkeypatch.setattr(flite, "_WALL_S", 0.2)
    with pytest.raises(SpeechFailedError):
        list(Flite(str(program)).say([TEXT], voice="slt", speed=1.0))
    assert tries.read_text() == "x\n"  # and not tried again


def test_whoever_waits_is_called_and_may_give_up(tmp_path: Path) -> None:
    before, others = descriptors(), children()
    program = tmp_path / "flite"
    program.write_text("#!/bin/sh\nwhile :; do :; done\n")
    program.chmod(0o700)
    with pytest.raises(InterruptedError):
        list(Flite(str(program)).say([TEXT, TEXT], voice="slt", speed=1.0, idle=give_up))
    assert descriptors() == before
    assert children() == others


def give_up() -> None:
    raise InterruptedError


def test_a_voice_has_bounds_of_time_memory_and_output() -> None:
    utterance = Utterance("/bin/cat", TEXT, "slt", 1.0)
    utterance.close()
    program = "import resource as r; print(*(r.getrlimit(x)[1] for x in (r.RLIMIT_CORE, r.RLIMIT_CPU, r.RLIMIT_FSIZE)))"
    with subprocess.Popen([sys.executable, "-c", f"input(); {program}"], stdin=-1, stdout=-1, text=True) as process:
        flite._limit(process.pid)
        assert process.communicate("\n")[0].split() == ["0", str(flite._CPU_S), str(flite._OUTPUT)]


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    before = descriptors()
    with pytest.raises(SpeechFailedError):
        list(Flite(str(tmp_path / "none")).say([TEXT], voice="slt", speed=1.0))
    assert descriptors() == before


def test_a_text_is_in_no_argument_and_no_file(tmp_path: Path) -> None:
    """Seen by the kernel: what flite and we open for writing, and what anyone is started with."""
    trace = tmp_path / "trace"
    script = (
        "from keepless.inference.embedded.flite import Flite\n"
        f"print(sum(map(len, Flite().say([{SECRET!r} + '. ' + {SECRET!r} + '!', 'Two.'], voice='slt', speed=1.0))))\n"
    )
    done = subprocess.run(
        ["strace", "-f", "-qq", "-s", "4096", "-e", "trace=openat,open,creat,execve,connect,mknod,rename,link,symlink",
         "-o", str(trace), sys.executable, "-B", "-"],
        input=script, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": "src"},
    )  # fmt: skip
    assert int(done.stdout) > RATE
    lines = trace.read_text().splitlines()
    assert any("execve(" in line and '/flite"' in line for line in lines)
    assert not any(SECRET in line for line in lines)
    written = [line for line in lines if "O_WRONLY" in line or "O_RDWR" in line or "creat(" in line]
    assert any("/dev/stdout" in line for line in written)
    assert all('"/dev/stdout"' in line or '"/dev/null"' in line for line in written), written
    assert not any("connect(" in line for line in lines)
