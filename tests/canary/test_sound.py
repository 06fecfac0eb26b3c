"""What was spoken is nowhere: not its sound, in any piece of it, and not its text, whatever becomes of the request.

The prover looks for texts; a sound is looked for here, by pieces that stand nowhere else in the world.
"""

import contextlib
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path

import openai
import pytest

from tests.support.others import others
from tests.support.serve import serve

SECRET = "marzipan zeppelins orbit forty purple lighthouses"
PIECE = 48


def pieces(sound: bytes) -> list[bytes]:
    """Some of its pieces, none of them silence."""
    generator = random.Random(7)
    starts = [2 * generator.randrange(len(sound) // 2 - PIECE) for _ in range(2000)]
    return [piece for at in starts if len(set(piece := sound[at : at + PIECE])) > PIECE // 2][:200]


def search(folders: list[Path], needles: list[bytes], *, since: float, without: Sequence[Path] = ()) -> list[str]:
    found, left = [], [*map(str, folders)]
    while left:
        try:
            entries = [*os.scandir(left.pop())]
        except OSError:  # others' folders come and go, and not everybody may read them
            continue
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    left += [] if Path(entry.path) in without else [entry.path]
                elif entry.is_file() and entry.stat().st_mtime >= since:
                    data = Path(entry.path).read_bytes()
                    found += [f"{entry.name}: {number}" for number, needle in enumerate(needles) if needle in data]
    return found


def test_the_search_finds_a_sound_that_was_written(tmp_path: Path) -> None:
    sound = bytes(random.Random(1).randbytes(10_000))
    (tmp_path / "planted").write_bytes(b"RIFF" + sound)
    assert len(search([tmp_path], pieces(sound), since=0)) == 200


def test_a_sound_is_nowhere_after_it_was_spoken_left_and_killed(tmp_path: Path) -> None:
    since = time.time() - 5
    (tmp_path / "served").mkdir()
    with serve(tmp_path / "served", [{"id": "flite", "engine": "flite"}]) as served:
        with openai.OpenAI(api_key=served.api_key, base_url=served.base_url, max_retries=0) as client:
            speech = client.audio.speech
            ask = {"model": "flite", "voice": "kal", "input": f"{SECRET}. " * 20}
            sound = speech.create(**ask, response_format="pcm", extra_body={"sample_rate": 16000}).content
            speech.create(**ask, response_format="wav")
            with speech.with_streaming_response.create(**ask, response_format="pcm") as answer:
                next(answer.iter_bytes())  # and leaves
            with pytest.raises(openai.BadRequestError):
                speech.create(**{**ask, "voice": SECRET})
            needles = [*pieces(sound), SECRET.encode()]
            folders = [tmp_path, Path("/tmp"), Path("/var/tmp"), Path("/dev/shm")]
            assert not search(folders, needles, since=since, without=others(tmp_path))
            served.process.kill()
            served.process.wait()
            assert not search(folders, needles, since=since, without=others(tmp_path))
        log = "".join(served.log).encode()
        assert not [needle for needle in needles if needle in log]
