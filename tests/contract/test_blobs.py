"""One suite for every blob driver: a folder, memory, S3 and GCS (both against a stand-in server on this machine)."""

import os
import resource
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest
from obstore.exceptions import BaseError

from keepless.errors import ConfigError
from keepless.ids import Id, Prefix, mint
from keepless.vault.blobs import BlobStore, BucketBlobs, FileBlobs, open_blobs
from keepless.vault.bucket_api import S3Api
from keepless.vault.errors import BlobMissingError, StoreFailedError
from keepless.vault.rows import Leftover
from keepless.vault.sigv4 import sign
from tests.support.moto import Moto

EVER = 2**62


@pytest.fixture(params=["file", "memory", "s3", "gs"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobStore]:
    if request.param == "file":
        yield open_blobs(f"file://{tmp_path}/blobs", {})
    elif request.param == "memory":
        yield open_blobs("memory://", {})
    else:
        moto: Moto = request.getfixturevalue("moto")
        environment = moto.s3_environment() if request.param == "s3" else moto.gs_environment()
        yield open_blobs(f"{request.param}://{moto.bucket()}", environment)


@pytest.fixture
def blob() -> Id:
    return mint(Prefix.BLOB)


@pytest.mark.parametrize("sizes", [[], [0], [5], [100_000] * 3, [1 << 20] * 12])
def test_what_was_put_is_got(store: BlobStore, blob: Id, sizes: list[int]) -> None:
    pieces = [bytes([65 + i]) * size for i, size in enumerate(sizes)]
    store.put(blob, pieces)
    assert store.get(blob) == b"".join(pieces)


@pytest.mark.parametrize("sizes", [[], [0], [5], [100_000] * 3, [1 << 20] * 12])
def test_what_was_written_piece_by_piece_is_got(store: BlobStore, blob: Id, sizes: list[int]) -> None:
    pieces = [bytes([65 + i]) * size for i, size in enumerate(sizes)]
    sink = store.begin(blob)
    for piece in pieces:
        sink.write(piece)
    assert list(store.listed(EVER)) == []  # not before it is finished
    sink.finish()
    assert store.get(blob) == b"".join(pieces)
    assert list(store.listed(EVER)) == [blob]
    assert store.leftovers(EVER) == []


@pytest.mark.parametrize("count", [0, 1, 12])
def test_what_is_aborted_leaves_nothing(store: BlobStore, blob: Id, count: int) -> None:
    sink = store.begin(blob)
    for _ in range(count):
        sink.write(b"x" * (1 << 20))
    sink.abort()
    assert list(store.listed(EVER)) == []
    assert store.leftovers(EVER) == []


def test_parts_of_a_blob_are_got(store: BlobStore, blob: Id) -> None:
    data = bytes(range(256)) * 40_000
    store.put(blob, [data])
    for start, length in ((0, 1), (0, len(data)), (7, 300), (len(data) - 3, 3), (len(data) - 3, 10)):
        assert store.get_range(blob, start, length) == data[start : start + length]
    with pytest.raises(BlobMissingError) as caught:
        store.get_range(mint(Prefix.BLOB), 0, 5)
    assert caught.value.__suppress_context__
    with pytest.raises(StoreFailedError):
        store.get_range(blob, len(data) + 5, 1)


def test_a_journal_grows_is_one_in_lists_and_goes_whole(store: BlobStore, blob: Id) -> None:
    journal, other = mint(Prefix.JOURNAL), mint(Prefix.JOURNAL)
    store.put(blob, [b"x"])
    groups = [b"a", b"b" * 5000, b"c" * 3]
    position = 0
    for part, group in enumerate(groups):
        store.append(journal, position, part, group)
        position += len(group)
    store.append(other, 0, 0, b"o")
    whole = b"".join(groups)
    for length in (0, 1, 2, 5001, len(whole)):
        assert b"".join(store.journal(journal, length)) == whole[:length]
    with pytest.raises(StoreFailedError):
        list(store.journal(journal, len(whole) + 1))
    assert store.get(journal)
    assert sorted(store.listed(EVER)) == sorted([blob, journal, other])
    assert store.leftovers(EVER) == []
    assert sorted(store.delete([journal, blob])) == sorted([journal, blob])
    assert list(store.listed(EVER)) == [other]
    assert store.delete([journal]) == [journal]
    assert b"".join(store.journal(other, 1)) == b"o"
    with pytest.raises(BlobMissingError):
        store.get(journal)
    with pytest.raises(BlobMissingError):
        list(store.journal(journal, 1))


def test_a_blob_that_is_not_there_is_missing(store: BlobStore, blob: Id) -> None:
    with pytest.raises(BlobMissingError) as caught:
        store.get(blob)
    assert caught.value.__suppress_context__
    assert blob not in str(caught.value)


def test_putting_again_replaces(store: BlobStore, blob: Id) -> None:
    store.put(blob, [b"one"])
    store.put(blob, [b"two"])
    assert store.get(blob) == b"two"
    assert list(store.listed(EVER)) == [blob]


def test_deleting_acknowledges_presence_and_absence_alike(store: BlobStore) -> None:
    there = [mint(Prefix.BLOB) for _ in range(5)]
    for blob in there[:3]:
        store.put(blob, [b"x"])
    assert sorted(store.delete(there)) == sorted(there)
    assert sorted(store.delete(there)) == sorted(there)
    assert list(store.listed(EVER)) == []
    assert store.delete([]) == []


def test_many_are_deleted_at_once(store: BlobStore) -> None:
    blobs = [mint(Prefix.BLOB) for _ in range(60)]
    for blob in blobs:
        store.put(blob, [b"x"])
    assert sorted(store.delete(blobs[:59])) == sorted(blobs[:59])
    assert list(store.listed(EVER)) == blobs[59:]


@pytest.mark.parametrize(("slow_s", "asked_for"), [(4.0, 3), (0.01, 48)], ids=["down", "refuses"])
def test_a_store_that_is_down_is_not_asked_for_each_of_many(
    monkeypatch: pytest.MonkeyPatch, slow_s: float, asked_for: int
) -> None:
    store = open_blobs("memory://", {})
    blobs = [mint(Prefix.BLOB) for _ in range(50)]
    asked: list[object] = []
    now = 0.0

    def fails(_: object, keys: str | list[str]) -> None:
        nonlocal now
        asked.append(keys)
        if isinstance(keys, list) or keys.partition("/")[2] in blobs[2:]:
            now += slow_s
            raise BaseError

    monkeypatch.setattr("keepless.vault.blobs.obstore.delete", fails)
    monkeypatch.setattr("keepless.vault.blobs.time.monotonic", lambda: now)
    assert store.delete(blobs) == blobs[:2]
    assert len(asked) == 1 + 2 + asked_for


def test_only_what_is_older_is_listed(store: BlobStore, blob: Id) -> None:
    store.put(blob, [b"x"])
    assert list(store.listed(EVER)) == [blob]
    assert list(store.listed(1)) == []


def test_what_is_not_ours_is_never_listed(store: BlobStore, blob: Id) -> None:
    inner = store._store
    for key in ("stranger", f"0/{blob}", f"{blob}", "a/blob_short"):
        obstore.put(inner, key, b"x", use_multipart=False)
    assert list(store.listed(EVER)) == []


def test_nothing_hidden_is_left_by_an_ordinary_put(store: BlobStore, blob: Id) -> None:
    store.put(blob, [b"x" * (1 << 20)] * 7)
    assert store.leftovers(EVER) == []


def test_what_a_killed_put_leaves_is_found_and_dropped(store: BlobStore, blob: Id) -> None:
    key = f"{blob[5]}/{blob}"
    if isinstance(store, FileBlobs):
        folder = store._folder / blob[5]
        folder.mkdir()
        (folder / f"{blob}#3").write_bytes(b"half")
    elif isinstance(store, BucketBlobs):
        begin_upload(store, key)
    else:
        assert store.leftovers(EVER) == []
        return
    assert list(store.listed(EVER)) == []
    (leftover,) = store.leftovers(EVER)
    assert leftover.key.startswith(key)
    assert store.leftovers(1) == []
    store.drop(leftover)
    assert store.leftovers(EVER) == []
    store.drop(leftover)


def begin_upload(store: BucketBlobs, key: str) -> None:
    """As a put does that dies after its first part."""
    api = store.api
    bucket = str(store.name).partition(":")[2]
    url = f"{api.endpoint}/{bucket}/{key}?uploads="
    if isinstance(api, S3Api):
        headers = sign(
            api.credentials,
            method="POST",
            host=api.endpoint.removeprefix("http://"),
            path=f"/{bucket}/{key}",
            query={"uploads": ""},
            region=api.region,
            at_s=1_800_000_000,
        )
    else:
        headers = {"authorization": f"Bearer {api.credential()['token']}"}
    with urllib.request.urlopen(urllib.request.Request(url, method="POST", headers=headers, data=b""), timeout=10):
        pass


def test_dropping_takes_leftovers_only(tmp_path: Path, blob: Id) -> None:
    store = open_blobs(f"file://{tmp_path}/blobs", {})
    store.put(blob, [b"x"])
    for key in (f"{blob[5]}/{blob}", f"../{blob}#1", "x/y#1", f"{blob[5]}/../../{blob}#1"):
        with pytest.raises(ValueError, match="leftover"):
            store.drop(Leftover(key, "", 0))
    assert store.get(blob) == b"x"


def test_a_store_that_cannot_be_reached_says_so_without_its_text(blob: Id) -> None:
    environment = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "access",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    store = open_blobs("s3://nowhere", environment)
    calls = [
        lambda: store.put(blob, [b"x"]),
        lambda: store.get(blob),
        lambda: store.get_range(blob, 0, 1),
        lambda: store.begin(blob).finish(),
        lambda: store.append(mint(Prefix.JOURNAL), 0, 0, b"x"),
        lambda: list(store.listed(EVER)),
        lambda: store.leftovers(EVER),
        lambda: store.drop(Leftover(f"{blob[5]}/{blob}", "u", 0)),
    ]
    for call in calls:
        with pytest.raises(StoreFailedError) as caught:
            call()
        assert "127.0.0.1" not in str(caught.value)
        assert caught.value.__suppress_context__
    assert store.delete([blob, mint(Prefix.JOURNAL)]) == []


def test_a_disk_that_takes_no_more_is_an_error_and_leaves_no_blob(tmp_path: Path, blob: Id) -> None:
    store = open_blobs(f"file://{tmp_path}/blobs", {})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # the kernel refuses to write on, as a full disk does
    try:
        with pytest.raises(StoreFailedError) as caught:
            store.put(blob, [b"x" * 50_000] * 20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(tmp_path) not in str(caught.value)
    assert list(store.listed(EVER)) == []
    with pytest.raises(BlobMissingError):
        store.get(blob)
    for leftover in store.leftovers(EVER):
        store.drop(leftover)
    assert not [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]


def test_a_disk_that_is_full_half_way_through_a_streamed_blob(tmp_path: Path, blob: Id) -> None:
    store = open_blobs(f"file://{tmp_path}/blobs", {})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    sink = store.begin(blob)
    sink.write(b"x" * 50_000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(StoreFailedError):
            sink.write(b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    sink.abort()
    assert not [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]


def test_the_folder_is_for_its_owner_only_and_durable(
    tmp_path: Path, blob: Id, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_blobs(f"file://{tmp_path}/blobs", {})
    assert (tmp_path / "blobs").stat().st_mode & 0o777 == 0o700
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    folder = tmp_path / "blobs"
    shard = folder / blob[5]
    store.put(blob, [b"x"])
    assert synced == [str(shard / blob), str(shard), str(folder)]
    synced.clear()
    store.put(blob, [b"x"])
    assert synced == [str(shard / blob), str(shard)]
    synced.clear()
    assert store.delete([blob]) == [blob]
    assert synced == [str(shard)]


def test_a_folder_that_cannot_be_made_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="blobs_url"):
        open_blobs(f"file://{tmp_path}/file/blobs", {})


STARVED = """
import resource, sys
from keepless.errors import ConfigError
from keepless.ids import Prefix, mint
from keepless.vault.blobs import open_blobs
from keepless.vault.errors import StoreFailedError

_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
starve = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (3, most))
if sys.argv[2] == "before":
    starve()
    try:
        open_blobs(sys.argv[1], {})
    except ConfigError:
        sys.exit(7)
store = open_blobs(sys.argv[1], {})
starve()
try:
    store.put(mint(Prefix.BLOB), [b"x"])
except StoreFailedError:
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    store.put(mint(Prefix.BLOB), [b"x"])
    sys.exit(len(list(store.listed(2**62))))
"""


@pytest.mark.parametrize(("when", "code"), [("before", 7), ("after", 1)])
def test_a_process_without_descriptors_keeps_nothing_and_keeps_again_once_it_has_some(
    tmp_path: Path, when: str, code: int
) -> None:
    command = [sys.executable, "-c", STARVED, f"file://{tmp_path}/blobs", when]
    done = subprocess.run(command, capture_output=True, check=False, timeout=90)
    assert done.returncode == code, done.stderr
