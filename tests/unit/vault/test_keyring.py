"""A folder of keys: what it refuses to start with, what survives, what is destroyed."""

import multiprocessing
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from keepless.errors import ConfigError
from keepless.ids import Id, Prefix, mint
from keepless.vault.errors import KeyMissingError, StoreFailedError
from keepless.vault.keyring import FileKeyring, open_keyring


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "keyring"


@pytest.fixture
def keyring(folder: Path) -> FileKeyring:
    return FileKeyring.initialise(folder)


def test_a_new_keyring_is_for_its_owner_only(keyring: FileKeyring, folder: Path) -> None:
    keyring.create(mint(Prefix.KEK))
    keyring.set_head(1, bytes(32))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert (folder / "CACHEDIR.TAG").read_bytes().startswith(b"Signature: 8a477f597d28d172789f06886806bc55\n")
    keyring.check()


def test_modes_do_not_depend_on_the_umask(folder: Path) -> None:
    before = os.umask(0o777)
    try:
        keyring = FileKeyring.initialise(folder)
        keyring.create(mint(Prefix.KEK))
    finally:
        os.umask(before)
    keyring.check()


def test_a_keyring_is_made_once(keyring: FileKeyring, folder: Path) -> None:
    key = keyring.log_key()
    with pytest.raises(ConfigError, match="exists already"):
        FileKeyring.initialise(folder)
    assert keyring.log_key() == key
    assert len(key) == 32


def spoil(folder: Path, name: str) -> Callable[[], object]:
    path = folder / name
    return {
        "mode of the folder": lambda: folder.chmod(0o750),
        "mode of a file": lambda: (folder / "log.key").chmod(0o640),
        "no log key": (folder / "log.key").unlink,
        "no tag": (folder / "CACHEDIR.TAG").unlink,
        "short log key": lambda: (folder / "log.key").write_bytes(b"x" * 31),
        "head is noise": lambda: path.with_name("log.head").write_bytes(b"{"),
        "a link": lambda: (folder / "kek_x.key").symlink_to(folder / "log.key"),
        "folder is gone": lambda: folder.rename(folder.with_name("elsewhere")),
        "folder is a file": lambda: (folder.rename(folder.with_name("elsewhere")), folder.touch(0o700)),
    }[name]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mode of the folder", "mode 0700; set it with chmod"),
        ("mode of a file", "mode 0600; set it with chmod"),
        ("no log key", "log.key is missing; restore"),
        ("no tag", "CACHEDIR.TAG is missing; restore"),
        ("short log key", "32 bytes; restore"),
        ("head is noise", "log.head cannot be read; restore|mode 0600"),
        ("a link", "not a regular file"),
        ("folder is gone", "missing; restore it"),
        ("folder is a file", "not a folder"),
    ],
)
def test_it_refuses_to_start_and_says_what_to_do(keyring: FileKeyring, folder: Path, name: str, said: str) -> None:
    spoil(folder, name)()
    with pytest.raises(ConfigError, match=said):
        open_keyring(f"file://{folder}")


@pytest.mark.parametrize("url", ["gcpkms://x", "file://host/x", "file:relative", "/plain", "", "vault://x"])
def test_only_folders_are_keyrings_of_this_version(url: str) -> None:
    with pytest.raises(ConfigError, match="file:///FOLDER"):
        open_keyring(url)


def test_a_url_may_have_escapes(tmp_path: Path) -> None:
    made = open_keyring(f"file://{tmp_path}/with%20space", create=True)
    assert (tmp_path / "with space" / "log.key").exists()
    assert open_keyring(f"file://{tmp_path}/with%20space").log_key() == made.log_key()


def test_a_key_is_made_read_and_listed(keyring: FileKeyring) -> None:
    one, two = mint(Prefix.KEK), mint(Prefix.KEK)
    key = keyring.create(one)
    assert keyring.load(one) == key != keyring.create(two)
    assert {file.kek_id for file in keyring.kek_files()} == {one, two}
    assert all(file.created_at > 1_700_000_000_000 for file in keyring.kek_files())


def test_a_key_is_never_made_twice(keyring: FileKeyring) -> None:
    one = mint(Prefix.KEK)
    key = keyring.create(one)
    with pytest.raises(StoreFailedError):
        keyring.create(one)
    assert keyring.load(one) == key


def test_a_destroyed_key_is_gone_for_everyone_and_again_is_as_good(keyring: FileKeyring, folder: Path) -> None:
    one = mint(Prefix.KEK)
    key = keyring.create(one)
    elsewhere = FileKeyring(folder)
    assert elsewhere.load(one) == key
    held_open = (folder / f"{one}.key").open("rb")
    assert keyring.destroy(one)
    assert not keyring.destroy(one)
    with held_open:
        assert held_open.read() == bytes(32)  # overwritten, not only unlinked
    for each in (keyring, elsewhere):
        with pytest.raises(KeyMissingError):
            each.load(one)
    assert not any(key in path.read_bytes() for path in folder.iterdir())


@pytest.mark.parametrize("left", [b"", b"x" * 31, bytes(32)])
def test_what_a_crash_left_is_no_key_and_can_be_destroyed(keyring: FileKeyring, folder: Path, left: bytes) -> None:
    one = mint(Prefix.KEK)
    keyring.create(one)
    (folder / f"{one}.key").write_bytes(left)
    keyring.check()
    with pytest.raises(KeyMissingError):
        keyring.load(one)
    assert [file.kek_id for file in keyring.kek_files()] == [one]
    assert keyring.destroy(one)


@pytest.mark.parametrize("name", ["../outside", "log", "", "kek_short", "obj_aaaaaaaaaaaaaaaaaaaaaaaa"])
def test_only_ids_of_keks_name_files(keyring: FileKeyring, name: str) -> None:
    for call in (keyring.create, keyring.load, keyring.destroy):
        with pytest.raises(ValueError, match="not the id"):
            call(Id(name))


def test_a_full_disk_leaves_no_half_key(keyring: FileKeyring, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    before = sorted(path.name for path in folder.iterdir())
    monkeypatch.setattr(os, "write", full)
    for call in (lambda: keyring.create(mint(Prefix.KEK)), lambda: keyring.set_head(1, bytes(32))):
        with pytest.raises(StoreFailedError):
            call()
    assert sorted(path.name for path in folder.iterdir()) == before


def test_the_last_signed_head_survives(keyring: FileKeyring, folder: Path) -> None:
    assert keyring.head() is None
    for size in (1, 2, 300):
        keyring.set_head(size, bytes([size % 256]) * 32)
        assert FileKeyring(folder).head() == (size, bytes([size % 256]) * 32)
    assert sorted(path.name for path in folder.iterdir()) == ["CACHEDIR.TAG", "log.head", "log.key"]


def test_a_crash_while_the_head_is_written_keeps_the_old_one(keyring: FileKeyring, folder: Path) -> None:
    keyring.set_head(1, bytes(32))
    (folder / "log.head.new").write_bytes(b"half")
    (folder / "log.head.new").chmod(0o600)
    keyring.check()
    assert keyring.head() == (1, bytes(32))
    keyring.set_head(2, bytes(32))
    assert keyring.head() == (2, bytes(32))


def _count(folder: Path, times: int) -> None:
    keyring = FileKeyring(folder)
    for _ in range(times):
        with keyring.exclusive():
            head = keyring.head() or (0, bytes(32))
            keyring.set_head(head[0] + 1, head[1])


def test_signers_exclude_each_other_across_threads_and_processes(keyring: FileKeyring, folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_count, args=(folder, 20))
    threads = [threading.Thread(target=_count, args=(folder, 20)) for _ in range(3)]
    for each in (process, *threads):
        each.start()
    for each in (*threads, process):
        each.join()
    assert process.exitcode == 0
    assert keyring.head() == (80, bytes(32))
    keyring.check()


def test_the_key_of_webhooks_is_made_once_by_whoever_asks_first(keyring: FileKeyring, folder: Path) -> None:
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(FileKeyring(folder).webhooks_key())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert found[0] not in (bytes(32), keyring.log_key())
    assert stat.S_IMODE((folder / "webhooks.key").stat().st_mode) == 0o600
    keyring.check()
    (folder / "webhooks.key").write_bytes(b"short")
    with pytest.raises(StoreFailedError):
        keyring.webhooks_key()
