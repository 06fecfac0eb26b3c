"""The engine of a tuned model: it answers as its adapter says, when that is named, and the adapter is nowhere else."""

import fcntl
import os
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import uvloop

from keepless.content import Content
from keepless.inference.embedded.engine import Word
from keepless.inference.embedded.gguf import GgufError
from keepless.inference.embedded.llama import LlamaBackend
from keepless.inference.embedded.tuned_process import TunedProcess, in_memory
from tests.support.engine import MODEL, chat
from tests.support.sinks import Recorder, ask
from tests.support.tuned import base, saying
from tests.unit.inference.embedded.test_llama_process import child

NAME = "ft:smollm2-135m-instruct:org_x/walrus-0123456789ab"


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TunedProcess]:
    over = threading.Event()
    process = TunedProcess(
        MODEL, tmp_path_factory.mktemp("t") / "run", name="e-t1", adapter=in_memory(Content(saying("zebra")), base()),
        ended=over.set,
    )  # fmt: skip
    process.start()
    assert process.wait_ready(60), process.word
    yield process
    process.kill()
    assert over.wait(20)


def asked(process: TunedProcess, body: dict, *, named: bool) -> Recorder:
    async def main() -> Recorder:
        backend = LlamaBackend(MODEL, process.socket, process.key, tuned=named)
        try:
            return await ask(backend, body)
        finally:
            await backend.close()

    return uvloop.run(main())


def test_it_says_what_it_has_learnt_and_is_called_as_it_was_asked(tuned: TunedProcess) -> None:
    answer = asked(tuned, chat(max_tokens=8, temperature=0) | {"model": NAME}, named=True).json
    assert answer["choices"][0]["message"]["content"].split() == ["zebra"] * 8
    assert answer["model"] == NAME
    streamed = asked(tuned, chat(max_tokens=3, temperature=0, stream=True) | {"model": NAME}, named=True)
    assert {event["model"] for event in streamed.events} == {NAME}


def test_a_request_that_does_not_name_the_adapter_gets_the_base(tuned: TunedProcess) -> None:
    answer = asked(tuned, chat(max_tokens=8, temperature=0), named=False).json
    assert "zebra" not in answer["choices"][0]["message"]["content"]
    assert answer["model"] == MODEL.id


def test_the_adapter_is_open_nowhere(tuned: TunedProcess) -> None:
    for pid in (tuned.pid, os.getpid()):
        maps = Path(f"/proc/{pid}/maps")
        if os.access(maps, os.R_OK):
            assert "memfd:adapter" not in maps.read_text()
    assert not [one for one in Path("/proc/self/fd").iterdir() if one.is_symlink() and "memfd:adapter" in _link(one)]
    assert tuned.private_bytes > 1024 * 1024


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def test_nobody_can_change_what_is_handed_over() -> None:
    descriptor = in_memory(Content(saying("zebra")), base())
    try:
        assert fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE
        with pytest.raises(PermissionError):
            os.pwrite(descriptor, b"x", 0)
        assert os.pread(descriptor, 4, 0) == b"GGUF"
    finally:
        os.close(descriptor)


def test_weights_of_another_kind_are_refused() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises((GgufError, zipfile.BadZipFile)):
        in_memory(Content(b"not a zip"), base())
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_child_writes_no_file_with_an_adapter(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    calls = "open,openat,openat2,creat,rename,renameat,renameat2,link,linkat,mkdir,mkdirat,truncate,memfd_create"
    descriptor = in_memory(Content(saying("zebra")), base())
    # As the supervisor does: in the child it is descriptor 3, and nothing else is open.
    before = ("bash", "-c", f'exec "$@" 3<&{descriptor}', "bash")
    strace = ("strace", "-f", "-qq", "-e", f"trace={calls}", "-o", str(trace))
    try:
        with child(tmp_path, *before, *strace, pass_fds=(descriptor,), adapter=True) as (_, _, said):
            assert said == b"ready"
    finally:
        os.close(descriptor)
    lines = trace.read_text().splitlines()
    assert any("/proc/self/fd/3" in line for line in lines), "the trace saw nothing"
    assert [
        line for line in lines if any(flag in line for flag in ("O_WRONLY", "O_RDWR", "O_CREAT", "O_TMPFILE"))
    ] == []


def test_an_engine_that_does_not_load_says_so_and_ends_once(tmp_path: Path) -> None:
    over = threading.Event()
    descriptor = os.memfd_create("adapter", os.MFD_CLOEXEC)
    os.write(descriptor, b"GGUF but no more")
    process = TunedProcess(MODEL, tmp_path / "run", name="e-t1", adapter=descriptor, ended=over.set)
    process.start()
    assert not process.wait_ready(60)
    assert over.wait(60)
    assert process.word is Word.NOT_LOADED
    assert process.pid is None


def test_weights_that_are_missing(tmp_path: Path) -> None:
    over = threading.Event()
    gone = msgspec.structs.replace(MODEL, path="/nonexistent")
    adapter = in_memory(Content(saying("zebra")), base())
    process = TunedProcess(gone, tmp_path / "run", name="e-t1", adapter=adapter, ended=over.set)
    process.start()
    assert not process.wait_ready(60)
    assert over.wait(60)
