"""Blobs that are written piece by piece, in every kind of store: whole or not there at all."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from keepless.ids import Prefix, mint
from keepless.vault.blobs import BlobStore, BucketBlobs, FileBlobs, MemoryBlobs, open_blobs
from keepless.vault.errors import StoreFailedError
from keepless.vault.sinks import PulledSink


def test_a_file_is_the_owners_alone_and_durable_before_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, blob = FileBlobs(tmp_path / "blobs"), mint(Prefix.BLOB)
    done: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        done.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    sink = store.begin(blob)
    sink.write(b"one")
    folder = tmp_path / "blobs" / blob[5]
    staged = folder / f"{blob}#0"
    assert staged.stat().st_mode & 0o777 == 0o600
    sink.finish()
    assert done == [str(staged), str(folder), str(tmp_path / "blobs")]
    assert store.get(blob) == b"one"
    sink.abort()
    assert store.get(blob) == b"one"


def test_a_folder_that_takes_nothing_says_so_without_its_name(tmp_path: Path) -> None:
    store, blob = FileBlobs(tmp_path / "blobs"), mint(Prefix.BLOB)
    (tmp_path / "blobs" / blob[5]).touch()
    with pytest.raises(StoreFailedError) as caught:
        store.begin(blob)
    assert str(tmp_path) not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_sink_that_was_aborted_fails_and_leaves_nothing(tmp_path: Path) -> None:
    store, blob = FileBlobs(tmp_path / "blobs"), mint(Prefix.BLOB)
    sink = store.begin(blob)
    sink.write(b"one")
    sink.abort()
    for act in (lambda: sink.write(b"two"), sink.finish):
        with pytest.raises(StoreFailedError):
            act()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def pulled(pieces: list[bytes], gate: threading.Event | None = None) -> Callable[[Iterator[bytes]], None]:
    def put(source: Iterator[bytes]) -> None:
        if gate is not None:
            gate.wait(10)
        pieces.extend(source)

    return put


def test_a_store_that_pulls_gets_every_piece_in_order_and_no_more_than_it_takes() -> None:
    pieces: list[bytes] = []
    gate = threading.Event()
    sink = PulledSink(pulled(pieces, gate))
    for n in range(4):
        sink.write(bytes([n]))
    writing = threading.Thread(target=lambda: [sink.write(bytes([n])) for n in range(4, 40)])
    writing.start()
    writing.join(0.05)
    assert writing.is_alive()  # it waits for the store
    gate.set()
    writing.join()
    sink.finish()
    assert pieces == [bytes([n]) for n in range(40)]


def write_much(sink: PulledSink) -> None:
    for _ in range(100):
        sink.write(b"x")


@pytest.mark.parametrize("error", [StoreFailedError("full"), RuntimeError("odd"), SystemExit()])
def test_a_store_that_fails_fails_the_writer(error: BaseException) -> None:
    def put(source: Iterator[bytes]) -> None:
        next(source)
        raise error

    sink = PulledSink(put)
    with pytest.raises(StoreFailedError):
        write_much(sink)
    with pytest.raises(StoreFailedError):
        sink.finish()
    sink.abort()


def test_a_store_that_ends_before_its_time_fails_the_writer() -> None:
    sink = PulledSink(lambda source: None)
    with pytest.raises(StoreFailedError):
        write_much(sink)


@pytest.mark.parametrize("written", [0, 2, 4])
def test_what_is_aborted_never_looks_finished_to_the_store(written: int) -> None:
    ended: list[str] = []

    def put(source: Iterator[bytes]) -> None:
        try:
            list(source)
            ended.append("whole")
        except Exception:
            ended.append("cut")
            raise

    sink = PulledSink(put)
    for _ in range(written):
        sink.write(b"x")
    sink.abort()
    assert ended == ["cut"]


def test_every_driver_has_its_sink(tmp_path: Path) -> None:
    assert {type(FileBlobs(tmp_path).begin(mint(Prefix.BLOB))).__name__, _name(MemoryBlobs())} == {
        "FileSink",
        "WholeSink",
    }
    environment = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s"}
    bucket = open_blobs("s3://nowhere", environment)
    assert isinstance(bucket, BucketBlobs)
    assert _name(bucket) == "PulledSink"


def _name(store: BlobStore) -> str:
    sink = store.begin(mint(Prefix.BLOB))
    sink.abort()
    return type(sink).__name__
