"""The blob drivers: ciphertext under opaque keys, in a folder, in memory, or in a bucket (S3, GCS), through obstore.

Holds: `BlobStore`, the one Protocol; its drivers; `open_blobs` by URL. Leaves out: encryption (envelope), which blob
belongs to what (catalogue), whether the location may be written to (locations), writing piece by piece (sinks).

put returns when the bytes are durable (the folder driver fsyncs by itself; obstore's never does), delete the blobs that
the store acknowledged to be absent. A journal is a blob that grows by groups: a file; in a bucket, an object a group.
A killed put can leave parts that no listing shows: `<key>#<n>` beside the key in a folder, an unfinished multipart
upload in a bucket; `leftovers` finds them and `drop` destroys them. All is ciphertext.

Keys are `<first letter>/<blob id>`: random, so a folder of that name tells nothing and may stay when it is empty.
"""

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import GCSStore, LocalStore, MemoryStore, ObjectStore, S3Store

from keepless.errors import ConfigError
from keepless.ids import Id, Prefix, parse
from keepless.vault.bucket_api import BucketApi, BucketError, GcsApi, S3Api
from keepless.vault.errors import BlobMissingError, StoreFailedError
from keepless.vault.folder import fsync, remove
from keepless.vault.library import start_library
from keepless.vault.rows import Leftover
from keepless.vault.sinks import BlobSink, FileSink, PulledSink, WholeSink, append_to

__all__ = ["BlobStore", "BucketBlobs", "FileBlobs", "MemoryBlobs", "open_blobs"]

_STAGED: Final = re.compile(r"[a-z2-7]/blob_[a-z2-7]{24}#\d+\Z")
_PART: Final = re.compile(r"/\d{10}\Z")
_NAME: Final = len(Prefix.JOURNAL) + 24
_PIECE: Final = 1 << 22
_BATCH: Final = 1000
_PARTS_AT_ONCE: Final = 4  # of an upload in parts of 5 MiB: what one blob may hold in memory
_IN_VAIN_S: Final = 10.0  # of failures alone, each after its retries: a store is down; one that refuses is quicker
_FOLDERS_AT_ONCE: Final = 8
_CONNECT: Final = timedelta(seconds=5)
_RETRY: Final[Any] = {"max_retries": 3, "retry_timeout": timedelta(seconds=30)}
_FAILURES: Final = (BaseError, OSError, BucketError)


class BlobStore(Protocol):
    """One location of ciphertext. Every method blocks and may raise `StoreFailedError`."""

    @property
    def name(self) -> Id:
        """The location's name in the catalogue."""

    def put(self, blob: Id, pieces: Sequence[bytes]) -> None:
        """Store one blob; durable when this returns."""

    def begin(self, blob: Id) -> BlobSink:
        """A blob to be written piece by piece."""

    def append(self, journal: Id, position: int, part: int, group: bytes) -> None:
        """Add the part-th group to a journal, at a position where all earlier ones end; durable when this returns.

        Part 0 makes the journal. What lies beyond the position may be overwritten.
        """

    def journal(self, journal: Id, length: int) -> Iterator[bytes]:
        """The first bytes of a journal, in pieces; fewer when it ends before. Raises `BlobMissingError`."""

    def get(self, blob: Id) -> bytes:
        """All bytes of a blob (of a journal: what shows that it is there). Raises `BlobMissingError`."""

    def get_range(self, blob: Id, start: int, length: int) -> bytes:
        """Some bytes of a blob; fewer when it ends before. Raises `BlobMissingError`."""

    def delete(self, blobs: Sequence[Id]) -> list[Id]:
        """Delete blobs; returns those now acknowledged absent."""

    def listed(self, older_than_ms: int) -> Iterator[Id]:
        """Every blob that the store shows and that is older than an instant."""

    def leftovers(self, older_than_ms: int) -> list[Leftover]:
        """Hidden leftovers older than an instant."""

    def drop(self, leftover: Leftover) -> None:
        """Destroy one leftover; gone already is as good."""


def _key(blob: Id) -> str:
    return f"{blob[len(Prefix.BLOB)]}/{blob}"


def _blob(key: str) -> Id | None:
    _, _, name = key.partition("/")
    blob = parse(name, Prefix.BLOB) or parse(name[:_NAME], Prefix.JOURNAL)
    if blob is None or not key.startswith(_key(blob)):
        return None
    return blob if blob == name or _PART.match(name[_NAME:]) else None


def _is_journal(blob: Id) -> bool:
    return blob.startswith(Prefix.JOURNAL)


def _part(journal: Id, part: int) -> str:
    return f"{_key(journal)}/{part:010}"


def _given(act: Callable[[], bytes]) -> bytes:
    try:
        return act()
    except (NotFoundError, FileNotFoundError):
        raise BlobMissingError("the store has no such blob") from None
    except _FAILURES:
        raise StoreFailedError("the store did not give the blob") from None


class _Blobs:
    """What all drivers share. A journal is a folder of its groups, one object each."""

    def __init__(self, name: str, store: ObjectStore) -> None:
        self.name: Final = Id(name)
        self._store = store

    def put(self, blob: Id, pieces: Sequence[bytes]) -> None:
        """See `BlobStore`."""
        self._pull(blob, iter(pieces))

    def _pull(self, blob: Id, pieces: Iterator[bytes]) -> None:
        try:
            obstore.put(self._store, _key(blob), pieces, max_concurrency=_PARTS_AT_ONCE)
        except _FAILURES:
            raise StoreFailedError("the store did not take the blob") from None

    def append(self, journal: Id, position: int, part: int, group: bytes) -> None:
        """See `BlobStore`."""
        try:
            obstore.put(self._store, _part(journal, part), group, use_multipart=False)
        except _FAILURES:
            raise StoreFailedError("the store did not take the blob") from None

    def journal(self, journal: Id, length: int) -> Iterator[bytes]:
        """See `BlobStore`."""
        part = 0
        while length > 0:
            piece = self._get(_part(journal, part))[:length]
            yield piece
            length, part = length - len(piece), part + 1

    def get(self, blob: Id) -> bytes:
        """See `BlobStore`."""
        return self._get(_part(blob, 0) if _is_journal(blob) else _key(blob))

    def _get(self, key: str) -> bytes:
        return _given(lambda: obstore.get(self._store, key).bytes().to_bytes())

    def get_range(self, blob: Id, start: int, length: int) -> bytes:
        """See `BlobStore`."""
        return _given(lambda: obstore.get_range(self._store, _key(blob), start=start, length=length).to_bytes())

    def delete(self, blobs: Sequence[Id]) -> list[Id]:
        """See `BlobStore`."""
        gone = [blob for blob in blobs if _is_journal(blob) and self._delete_parts(blob)]
        plain = iter([blob for blob in blobs if not _is_journal(blob)])
        while some := list(islice(plain, _BATCH)):
            try:
                obstore.delete(self._store, [_key(blob) for blob in some])
                gone += some
            except _FAILURES:  # one of them was absent or failed: ask one by one which
                gone += self._delete_each(some)
        return gone

    def _delete_each(self, blobs: Sequence[Id]) -> Iterator[Id]:
        """Those that the store acknowledges one by one; of a store that is down it is not asked for all of them."""
        well = time.monotonic()
        for blob in blobs:
            if self._delete_one(blob):
                well = time.monotonic()
                yield blob
            elif time.monotonic() - well >= _IN_VAIN_S:
                return

    def _delete_parts(self, journal: Id) -> bool:
        try:
            for page in obstore.list(self._store, _key(journal), chunk_size=_BATCH):
                obstore.delete(self._store, [found["path"] for found in page])
        except _FAILURES:
            return False
        return True

    def _delete_one(self, blob: Id) -> bool:
        try:
            obstore.delete(self._store, _key(blob))
        except (NotFoundError, FileNotFoundError):
            return True
        except _FAILURES:
            return False
        return True

    def _objects(self) -> Iterator[tuple[str, datetime]]:
        try:
            for page in obstore.list(self._store, chunk_size=_BATCH):
                for found in page:
                    yield found["path"], found["last_modified"]
        except _FAILURES:
            raise StoreFailedError("the store cannot be listed") from None

    def listed(self, older_than_ms: int) -> Iterator[Id]:
        """See `BlobStore`."""
        last: Id | None = None
        for key, modified in self._objects():
            blob = _blob(key)
            if blob is not None and blob != last and modified.timestamp() * 1000 < older_than_ms:
                last = blob  # a journal's parts come one after another
                yield blob


class MemoryBlobs(_Blobs):
    """Memory: for tests and for throw-away deployments; everything is gone with the process."""

    def __init__(self) -> None:
        super().__init__("memory", MemoryStore())

    def begin(self, blob: Id) -> BlobSink:
        """See `BlobStore`."""
        return WholeSink(lambda pieces: self._pull(blob, pieces))

    def leftovers(self, older_than_ms: int) -> list[Leftover]:
        """Memory has none."""
        return []

    def drop(self, leftover: Leftover) -> None:
        """Memory has none."""


class FileBlobs(_Blobs):
    """A folder (0700). Its name in the catalogue is `local`."""

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
        except OSError:
            raise ConfigError("blobs_url: the folder cannot be written") from None
        super().__init__("local", LocalStore(folder))
        self._folder = folder
        self._durable: set[str] = set()  # shards whose own entry in the folder is known to be durable
        self._lock = threading.Lock()

    def put(self, blob: Id, pieces: Sequence[bytes]) -> None:
        """See `BlobStore`."""
        super().put(blob, pieces)
        path = self._folder / _key(blob)
        try:
            fsync(path)
            self._name_durably(path)
        except OSError:
            raise StoreFailedError("the store did not take the blob") from None

    def begin(self, blob: Id) -> BlobSink:
        """See `BlobStore`."""
        path = self._folder / _key(blob)
        return FileSink(path.with_name(f"{path.name}#0"), path, self._name_durably)

    def append(self, journal: Id, position: int, part: int, group: bytes) -> None:
        """See `BlobStore`: here a journal is one file."""
        append_to(self._folder / _key(journal), position, group, None if part else self._name_durably)

    def journal(self, journal: Id, length: int) -> Iterator[bytes]:
        """See `BlobStore`."""
        position = 0
        while position < length:
            piece = self.get_range(journal, position, min(_PIECE, length - position))
            yield piece
            position += len(piece)

    def get(self, blob: Id) -> bytes:
        """See `BlobStore`."""
        return self.get_range(blob, 0, 1) if _is_journal(blob) else super().get(blob)

    def _name_durably(self, path: Path) -> None:
        fsync(path.parent)
        with self._lock:
            if path.parent.name not in self._durable:
                fsync(self._folder)
                self._durable.add(path.parent.name)

    def delete(self, blobs: Sequence[Id]) -> list[Id]:
        """See `BlobStore`."""
        shards: dict[str, list[Id]] = {}
        for blob in blobs:
            shards.setdefault(_key(blob)[0], []).append(blob)
        folders = [self._folder / shard for shard in shards]
        if len(folders) == 1:
            return remove(folders[0], blobs)
        with ThreadPoolExecutor(_FOLDERS_AT_ONCE) as threads:
            return [blob for gone in threads.map(remove, folders, shards.values()) for blob in gone]

    def leftovers(self, older_than_ms: int) -> list[Leftover]:
        """See `BlobStore`."""
        found = []
        try:
            for path in self._folder.glob("*/*#*"):
                key = path.relative_to(self._folder).as_posix()
                with contextlib.suppress(FileNotFoundError):  # renamed to a blob since the folder was read
                    at = path.lstat().st_mtime_ns // 1_000_000
                    if _STAGED.match(key) and at < older_than_ms:
                        found.append(Leftover(key, "", at))
        except OSError:
            raise StoreFailedError("the store cannot be listed") from None
        return found

    def drop(self, leftover: Leftover) -> None:
        """See `BlobStore`."""
        if leftover.upload or not _STAGED.match(leftover.key):
            raise ValueError("not a leftover of a folder")
        path = self._folder / leftover.key
        try:
            path.unlink(missing_ok=True)
            fsync(path.parent)
        except OSError:
            raise StoreFailedError("the store did not delete the leftover") from None


class BucketBlobs(_Blobs):
    """A bucket on S3 or GCS; `api` makes the plain calls that obstore does not have."""

    def __init__(self, store: ObjectStore, api: BucketApi) -> None:
        super().__init__(api.name, store)
        self.api: Final = api

    def begin(self, blob: Id) -> BlobSink:
        """See `BlobStore`."""
        return PulledSink(lambda pieces: self._pull(blob, pieces))

    def leftovers(self, older_than_ms: int) -> list[Leftover]:
        """See `BlobStore`."""
        try:
            uploads = self.api.uploads()
        except _FAILURES:
            raise StoreFailedError("the store cannot be listed") from None
        return [Leftover(u.key, u.upload, u.at) for u in uploads if u.at < older_than_ms and _blob(u.key)]

    def drop(self, leftover: Leftover) -> None:
        """See `BlobStore`."""
        try:
            self.api.abort(leftover.key, leftover.upload)
        except _FAILURES:
            raise StoreFailedError("the store did not delete the leftover") from None


def open_blobs(url: str, environ: Mapping[str, str]) -> BlobStore:
    """The driver of a URL; buckets take their credentials from the environment as their own tools do.

    Raises `ConfigError`.
    """
    start_library()
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return FileBlobs(Path(unquote(parts.path)))
    if parts.scheme == "memory":
        return MemoryBlobs()
    if parts.scheme in {"s3", "gs"} and parts.netloc and parts.path in {"", "/"} and not parts.query:
        return _open_s3(parts.netloc, environ) if parts.scheme == "s3" else _open_gs(parts.netloc, environ)
    raise ConfigError("blobs_url: file:///FOLDER, s3://BUCKET or gs://BUCKET")


def _open_s3(bucket: str, environ: Mapping[str, str]) -> BucketBlobs:
    api = S3Api.from_environment(bucket, environ)
    session: Any = {"token": api.credentials.token} if api.credentials.token else {}
    store = S3Store(
        bucket,
        config=session,
        endpoint=api.endpoint,
        region=api.region,
        access_key_id=api.credentials.access_key,
        secret_access_key=api.credentials.secret_key,
        virtual_hosted_style_request=False,
        client_options={"allow_http": api.endpoint.startswith("http://"), "connect_timeout": _CONNECT},
        retry_config=_RETRY,
    )
    return BucketBlobs(store, api)


def _open_gs(bucket: str, environ: Mapping[str, str]) -> BucketBlobs:
    api = GcsApi.from_environment(bucket, environ)
    store = GCSStore(
        bucket,
        base_url=api.endpoint,
        credential_provider=api.credential,
        client_options={"allow_http": api.endpoint.startswith("http://"), "connect_timeout": _CONNECT},
        retry_config=_RETRY,
    )
    return BucketBlobs(store, api)
