"""A leak planted on purpose in each kind of place and in each form: the prover must find it and name its marker."""

import base64
import bz2
import ctypes
import gzip
import io
import json
import lzma
import os
import quopri
import socket
import sqlite3
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from keepless.db import Database
from keepless.prover import places
from keepless.prover.markers import Marker, Markers
from keepless.prover.places import Searched
from keepless.prover.search import Hit, Search
from tests.support.postgres import Cluster


@pytest.fixture
def markers() -> Markers:
    return Markers()


@pytest.fixture
def marker(markers: Markers) -> Marker:
    markers.mint("another")
    marker = markers.mint("planted")
    markers.mint("a third")
    return marker


@pytest.fixture
def search(markers: Markers) -> Search:
    return Search.of_run(markers)


def numbers(searched: Searched) -> set[int]:
    return {finding.marker for finding in searched.findings}


def zipped(data: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("one", b"first")
        archive.writestr("two", data * 3)
    return target.getvalue()


def zstandard(data: bytes) -> bytes:
    library = ctypes.CDLL("libzstd.so.1")
    library.ZSTD_compress.restype = ctypes.c_size_t
    target = ctypes.create_string_buffer(1000)
    sizes = ctypes.c_size_t(len(target)), ctypes.c_size_t(len(data))
    written = library.ZSTD_compress(target, sizes[0], data, sizes[1], 3)
    return target.raw[:written]


def everywhere(text: str) -> str:
    return f"Dear model, the word is {text}, is it not?"


FORMS = {
    "plain": str.encode,
    "upper case": lambda text: text.upper().encode(),
    "base64": lambda text: base64.b64encode(text.encode()),
    "base64 after one byte": lambda text: base64.b64encode(b"." + text.encode()),
    "base64 after two bytes": lambda text: base64.b64encode(b".." + text.encode()),
    "base64url": lambda text: base64.urlsafe_b64encode(b"\xff\xfe" + text.encode()),
    "base32": lambda text: base64.b32encode(b"..." + text.encode()),
    "hex": lambda text: text.encode().hex().encode(),
    "hex, capitals": lambda text: text.encode().hex().upper().encode(),
    "hex dump": lambda text: text.encode().hex(" ").encode(),
    "utf-16": lambda text: text.encode("utf-16"),
    "utf-16 big endian": lambda text: text.encode("utf-16-be"),
    "json": lambda text: json.dumps({"content": text}).encode(),
    "json, all escaped": lambda text: "".join(f"\\u{ord(letter):04x}" for letter in text).encode(),
    "bytes, all escaped": lambda text: "".join(f"\\x{ord(letter):02x}" for letter in text).encode(),
    "url": lambda text: quote(text).encode(),
    "url, all escaped": lambda text: "".join(f"%{ord(letter):02X}" for letter in text).encode(),
    "quoted-printable": lambda text: quopri.encodestring(text.encode(), quotetabs=True),
    "reversed": lambda text: text[::-1].encode(),
    "gzip": lambda text: gzip.compress(text.encode()),
    "zlib": lambda text: zlib.compress(text.encode()),
    "zlib, stored": lambda text: zlib.compress(text.encode(), 0),
    "zip": lambda text: zipped(text.encode()),
    "bzip2": lambda text: bz2.compress(text.encode()),
    "xz": lambda text: lzma.compress(text.encode()),
    "zstd": lambda text: zstandard(text.encode()),
    "gzip of base64": lambda text: gzip.compress(base64.b64encode(text.encode())),
    "gzip of gzip": lambda text: gzip.compress(gzip.compress(text.encode())),
    "gzip cut short": lambda text: gzip.compress(text.encode() + os.urandom(2000))[:-900],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_found_wherever_it_stands(form: str, marker: Marker, search: Search) -> None:
    leak = FORMS[form](everywhere(marker.text))
    for before in (0, 1, 2, 3, 4095):
        hits = search.within(os.urandom(before) + leak + os.urandom(100))
        assert {hit.marker for hit in hits} == {marker.number}, before


@pytest.mark.parametrize("at", range(1, 40))
def test_a_marker_cut_in_two_is_found(at: int, marker: Marker, search: Search) -> None:
    data = marker.text[:at].encode() + b"\0" * 24 + marker.text[at:].encode()
    assert Hit("plain", marker.number) in search.within(data)


def test_nothing_is_found_where_nothing_is(marker: Marker, search: Search) -> None:
    other = Markers().mint("of another run")
    noise = os.urandom(1 << 20) + other.text.encode() + gzip.compress(other.text.encode()) + marker.text[:11].encode()
    assert search.within(noise) == set()


def test_what_is_cut_off_before_it_says_which_is_found_without_a_name(markers: Markers, search: Search) -> None:
    assert search.within(markers.tag.encode()) == {Hit("plain", 0)}


@pytest.mark.parametrize("name", ["keyring/log.key", "blobs/a/blob_x", "run/engine.socket.txt", "tmp/upload", "core"])
def test_in_a_file(name: str, tmp_path: Path, marker: Marker, search: Search) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(5000) + marker.text.encode() + os.urandom(5000))
    searched = places.folder(search, tmp_path, "data folder")
    assert numbers(searched) == {marker.number}
    assert {finding.what for finding in searched.findings} == {name}


def test_in_names_links_and_attributes(tmp_path: Path, marker: Marker, search: Search) -> None:
    (tmp_path / f"upload-{marker.text}.jsonl").touch()
    searched = places.folder(search, tmp_path, "data folder")
    assert numbers(searched) == {marker.number}
    assert marker.text not in repr(searched)
    (tmp_path / f"upload-{marker.text}.jsonl").unlink()
    (tmp_path / "link").symlink_to(marker.text)
    assert numbers(places.folder(search, tmp_path, "data folder")) == {marker.number}
    (tmp_path / "link").unlink()
    (tmp_path / "file").touch()
    os.setxattr(tmp_path / "file", "user.note", marker.text.encode())
    assert numbers(places.folder(search, tmp_path, "data folder")) == {marker.number}


def test_in_a_column_and_its_pages(tmp_path: Path, marker: Marker, search: Search) -> None:
    path = tmp_path / "keepless.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE leak (id INTEGER PRIMARY KEY, note TEXT, raw BLOB)")
        connection.execute("INSERT INTO leak VALUES (1, ?, ?)", ("x" * 4070 + marker.text + "x" * 9000, b""))
    connection.close()
    db = Database(f"sqlite:///{path}")
    assert numbers(places.database(search, db)) == {marker.number}
    db.close()
    assert numbers(places.folder(search, tmp_path, "data folder")) == {marker.number}


def test_in_the_wal_alone(tmp_path: Path, marker: Marker, search: Search) -> None:
    path = tmp_path / "keepless.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA secure_delete=ON")
    connection.execute("CREATE TABLE leak (note TEXT)")
    connection.execute("INSERT INTO leak VALUES (?)", (marker.text,))
    connection.commit()
    connection.execute("DELETE FROM leak")
    connection.commit()
    searched = places.folder(search, tmp_path, "data folder")
    assert numbers(searched) == {marker.number}
    assert {finding.what for finding in searched.findings} == {"keepless.sqlite-wal"}
    connection.close()


@pytest.mark.parametrize("kind", ["text", "bytea", "jsonb"])
def test_in_a_column_of_postgresql(kind: str, postgres: Cluster, marker: Marker, search: Search) -> None:
    with postgres.database() as url:
        value = {"text": marker.text, "bytea": marker.text.encode(), "jsonb": json.dumps({"x": [marker.text]})}[kind]
        with psycopg.connect(url) as connection:
            connection.execute(f"CREATE TABLE leak (note {kind})")
            connection.execute("INSERT INTO leak VALUES (%s)", (value,))
        db = Database(url.replace("postgresql://", "postgresql+psycopg://", 1))
        searched = places.database(search, db)
        db.close()
    assert numbers(searched) == {marker.number}
    assert {finding.what for finding in searched.findings} == {"leak"}


def test_in_the_job_store_of_postgresql(postgres: Cluster, marker: Marker, search: Search) -> None:
    """It is a schema of its own beside ours."""
    with postgres.database() as url:
        with psycopg.connect(url) as connection:
            connection.execute("CREATE SCHEMA keepless_jobs")
            connection.execute("CREATE TABLE keepless_jobs.workflow_status (inputs text)")
            connection.execute("INSERT INTO keepless_jobs.workflow_status VALUES (%s)", (marker.text,))
        db = Database(url.replace("postgresql://", "postgresql+psycopg://", 1))
        searched = places.database(search, db)
        db.close()
    assert numbers(searched) == {marker.number}
    assert {finding.what for finding in searched.findings} == {"workflow_status"}


def test_in_the_log(marker: Marker, search: Search) -> None:
    searched = places.output(search, {"stdout": b"", "stderr": f'{{"event": "{marker.text}"}}\n'.encode()})
    assert numbers(searched) == {marker.number}


CHILD = """
import ctypes, mmap, os, sys, tempfile
kind, path = sys.argv[1], sys.argv[2]
secret = sys.stdin.read()
if kind == "deleted":
    file = open(path, "w+"); file.write(secret); file.flush(); os.unlink(path)
elif kind == "memory":
    file = os.memfd_create("x"); os.write(file, secret.encode())
elif kind == "mapped":
    file = open(path, "wb+"); file.truncate(8192); area = mmap.mmap(file.fileno(), 0); file.close()
    area[5000:5000 + len(secret)] = secret.encode()
print("ready", flush=True)
sys.stdout.close()
import time; time.sleep(60)
"""


@pytest.mark.parametrize("kind", ["deleted", "memory", "mapped", "environment", "arguments"])
def test_in_a_process(kind: str, tmp_path: Path, marker: Marker, search: Search) -> None:
    since = time.time()
    environment = {**os.environ, **({"PROMPT": marker.text} if kind == "environment" else {})}
    arguments = [marker.text] if kind == "arguments" else []
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, kind, str(tmp_path / "file"), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    )
    try:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"" if kind in ("environment", "arguments") else marker.text.encode())
        child.stdin.close()
        assert child.stdout.readline() == b"ready\n"
        assert child.pid in places.descendants(os.getpid())
        searched = places.processes(search, places.descendants(child.pid), since=since - 1)
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    assert numbers(searched) == {marker.number}
    assert searched.unreadable == 0


def test_what_several_processes_have_open_is_read_once(marker: Marker, search: Search) -> None:
    since = time.time() - 1
    with os.fdopen(os.memfd_create("shared"), "wb") as file:
        file.write(marker.text.encode())
        file.flush()
        command = [sys.executable, "-c", "print('ready', flush=True); import time; time.sleep(60)"]
        each = [subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[file.fileno()]) for _ in range(2)]
        try:
            assert [child.stdout.readline() for child in each if child.stdout is not None] == [b"ready\n"] * 2
            searched = places.processes(search, [child.pid for child in each], since=since)
        finally:
            for child in each:
                child.kill()
                child.communicate()
    assert {(found.what, found.marker) for found in searched.findings} == {("server, open file", marker.number)}


@pytest.mark.parametrize("root", ["/tmp", "/var/tmp", "/dev/shm"])
def test_in_a_temporary_folder(root: str, marker: Marker, search: Search) -> None:
    folder = Path(root) / f"keepless-planted-{os.getpid()}"
    folder.mkdir()
    since = time.time() - 1
    try:
        (folder / "upload").write_bytes(gzip.compress(marker.text.encode()))
        searched = places.temporary(search, [folder], since=since)
        older = places.temporary(search, [folder], since=since + 3600)
    finally:
        (folder / "upload").unlink()
        folder.rmdir()
    assert numbers(searched) == {marker.number}
    assert numbers(older) == set()


def test_what_cannot_be_read_is_counted(tmp_path: Path, search: Search) -> None:
    db = Database(f"sqlite:///{tmp_path}/no/such/folder.sqlite")
    assert places.database(search, db).unreadable == 1
    db.close()
    searched = Searched("files")
    searched.file(search, tmp_path, "a folder instead of a file")
    assert searched.unreadable == 1


def test_sockets_and_pipes_hold_nobody_up(tmp_path: Path, marker: Marker, search: Search) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        (tmp_path / "file").write_text(marker.text)
        assert numbers(places.folder(search, tmp_path, "data folder")) == {marker.number}


@pytest.mark.parametrize("at", [0, 64 * 1024 * 1024 - 20, 64 * 1024 * 1024, 80 * 1024 * 1024])
def test_in_a_large_file(at: int, tmp_path: Path, marker: Marker, search: Search) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.seek(at)
        file.write(marker.text.encode())
    assert numbers(places.folder(search, tmp_path, "data folder")) == {marker.number}


def test_a_file_that_is_cut_short_while_it_is_searched(tmp_path: Path, marker: Marker) -> None:
    path = tmp_path / "wal"
    path.write_bytes(b"x" * 1_000_000)

    class Cutting(Search):
        def within(self, data: bytes) -> set[Hit]:
            os.truncate(path, 0)
            return super().within(data)

    assert places.folder(Cutting([marker.text], list), tmp_path, "data folder").findings == set()


def test_a_piece_of_sound_is_found_as_it_is(tmp_path: Path, marker: Marker, search: Search) -> None:
    piece = bytes(range(100, 148))
    search.add("sound", piece, marker.number)
    (tmp_path / "recording.wav").write_bytes(os.urandom(999) + piece + os.urandom(999))
    (tmp_path / "silence.wav").write_bytes(bytes(5000))
    searched = places.folder(search, tmp_path, "data folder")
    assert {(found.what, found.form, found.marker) for found in searched.findings} == {
        ("recording.wav", "sound", marker.number)
    }


def test_what_has_not_changed_is_read_once_and_what_has_again(tmp_path: Path, marker: Marker, search: Search) -> None:
    unchanged = places.Unchanged()
    (tmp_path / "old").write_bytes(b"nothing")
    (tmp_path / "leak").write_text(marker.text)

    class Later(places.Unchanged):
        """Its files have changed long ago."""

        def add(self, status: os.stat_result) -> None:
            super().add(os.stat_result((*status[:9], status.st_ctime - 60), {"st_ctime_ns": status.st_ctime_ns}))

    for known in (unchanged, Later()):
        first = places.temporary(search, [tmp_path], since=0, unchanged=known)
        again = places.temporary(search, [tmp_path], since=0, unchanged=known)
        assert numbers(first) == numbers(again) == {marker.number}  # what was found is read again
        assert (first.items, again.items) == (2, 2 if known is unchanged else 1)  # what changed just now as well
    (tmp_path / "old").write_text(marker.text)
    assert places.temporary(search, [tmp_path], since=0, unchanged=known).items == 2


def test_a_spoken_word_is_found_whatever_its_letters() -> None:
    marks = [Marker(7, word, "spoken word") for word in ("umbrella", "Umbrella")]
    search = Search([mark.text for mark in marks], lambda: marks)
    for text in (b"the umbrella is here", b"Umbrella.", b"UMBRELLA", b"umbrella".hex().encode()):
        assert {hit.marker for hit in search.within(text)} == {7}, text
    assert search.within(b"an umbel") == set()
