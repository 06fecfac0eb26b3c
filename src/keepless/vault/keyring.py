"""The keyring: KEKs and the log's signing key, outside the database and its backups (DECISIONS 14).

Holds: `FileKeyring`, one folder (0700) of one file a key (0600), with the log's signing key and the last signed head;
`open_keyring` by URL. Leaves out: which KEK wraps what (catalogue, door), signing itself (receipts).

create: new file (must not exist) -> bytes -> fsync -> fsync folder; only then may a row name the key.
destroy: overwrite -> fsync -> unlink -> fsync folder (commit point); again = nothing to do. On flash storage and on
copying file systems the overwriting may reach other cells; the unlinking is what counts there (threat model).

Nothing is cached: a key is read from its file at every use, so a KEK that any process destroyed is gone for all. A file
that a crash left empty or overwritten is no key: it reads as missing and is destroyed as an orphan.
"""

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec

from keepless.errors import ConfigError
from keepless.ids import Id, Prefix, parse
from keepless.vault.errors import KeyMissingError, StoreFailedError
from keepless.vault.rows import KekFile

__all__ = ["FileKeyring", "open_keyring"]

_KEY_BYTES: Final = 32
_LOG_KEY: Final = "log.key"
_WEBHOOKS_KEY: Final = "webhooks.key"
_HEAD: Final = "log.head"
_LOCK: Final = "log.lock"
_TAG_NAME: Final = "CACHEDIR.TAG"
# https://bford.info/cachedir/ : backup programs that know the mark leave such a folder out.
_TAG: Final = b"Signature: 8a477f597d28d172789f06886806bc55\n# Keys: a backup of them would undo deletions.\n"


class _Head(msgspec.Struct):
    size: int
    root: str


class FileKeyring:
    """A folder of keys. Thread-safe and process-safe: every operation is one atomic file operation."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def initialise(cls, folder: Path) -> "FileKeyring":
        """Make the folder and the log's signing key. Raises `ConfigError` when something is already there."""
        try:
            folder.mkdir(mode=0o700, parents=True)
            folder.chmod(0o700)
            keyring = cls(folder)
            keyring._create(_TAG_NAME, _TAG)
            keyring._create(_LOG_KEY, os.urandom(_KEY_BYTES))
            _fsync_folder(folder.parent)
        except FileExistsError:
            raise ConfigError("keyring: the folder exists already; it is made once, by `keepless init`") from None
        except OSError:
            raise ConfigError("keyring: the folder cannot be written") from None
        return keyring

    def check(self) -> None:
        """Refuse to start with a keyring that is missing, incomplete or open to others. Raises `ConfigError`."""
        fault = self.fault() or next(filter(None, map(_fault_of_file, self._folder.iterdir())), "")
        if fault:
            raise ConfigError(fault)
        self.head()

    def fault(self) -> str:
        """What is wrong with the folder and what is in it besides KEKs, of which there may be very many.

        A fixed text that says what to do; empty when nothing is.
        """
        fault = _fault_of(self._folder, directory=True)
        for name in (_LOG_KEY, _TAG_NAME):
            path = self._folder / name
            if not fault and not path.exists():
                fault = f"keyring: {name} is missing; restore the keyring of this data folder"
            fault = fault or _fault_of_file(path)
        if not fault and len(self.log_key()) != _KEY_BYTES:
            fault = "keyring: log.key does not have 32 bytes; restore the keyring of this data folder"
        return fault

    def create(self, kek_id: Id) -> bytes:
        """A new KEK, durable before this returns. Raises `StoreFailedError`."""
        key = os.urandom(_KEY_BYTES)
        try:
            self._create(_name(kek_id), key)
        except OSError:
            raise StoreFailedError("the keyring cannot be written") from None
        return key

    def load(self, kek_id: Id) -> bytes:
        """A KEK. Raises `KeyMissingError` when it was destroyed or never made, `StoreFailedError` when unreadable."""
        try:
            key = (self._folder / _name(kek_id)).read_bytes()
        except FileNotFoundError:
            raise KeyMissingError("the keyring has no such key") from None
        except OSError:
            raise StoreFailedError("the keyring cannot be read") from None
        if len(key) != _KEY_BYTES or key == bytes(_KEY_BYTES):  # zeros: being destroyed at this very moment
            raise KeyMissingError("the keyring has no such key")
        return key

    def has(self, kek_id: Id) -> bool:
        """Whether there is a file for a KEK."""
        return (self._folder / _name(kek_id)).exists()

    def destroy(self, kek_id: Id) -> bool:
        """Destroy a KEK for good; False when it was gone already. Raises `StoreFailedError`."""
        path = self._folder / _name(kek_id)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.pwrite(descriptor, bytes(_KEY_BYTES), 0)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            path.unlink()
        except FileNotFoundError:
            _fsync_folder(self._folder)  # whoever unlinked it may not have come to this
            return False
        except OSError:
            raise StoreFailedError("the keyring cannot be written") from None
        _fsync_folder(self._folder)
        return True

    def kek_files(self) -> Iterator[KekFile]:
        """Every KEK there is a file for."""
        with os.scandir(self._folder) as entries:
            for entry in entries:
                kek_id = parse(entry.name.removesuffix(".key"), Prefix.KEK)
                if kek_id is not None and entry.name.endswith(".key"):
                    with contextlib.suppress(FileNotFoundError):  # destroyed since the folder was read
                        yield KekFile(kek_id, entry.stat(follow_symlinks=False).st_mtime_ns // 1_000_000)

    def log_key(self) -> bytes:
        """The private Ed25519 key of the log (32 bytes). Raises `ConfigError`."""
        try:
            return (self._folder / _LOG_KEY).read_bytes()
        except OSError:
            raise ConfigError("keyring: log.key cannot be read; restore the keyring of this data folder") from None

    def webhooks_key(self) -> bytes:
        """What webhooks' secrets are derived from; made when it is first asked for. Raises `StoreFailedError`."""
        path = self._folder / _WEBHOOKS_KEY
        try:
            if not path.exists():
                with self.exclusive():  # of two that find none, the second finds the first one's
                    if not path.exists():
                        self._replace(
                            _WEBHOOKS_KEY, os.urandom(_KEY_BYTES)
                        )  # whole at once: others read without a lock
            key = path.read_bytes()
        except OSError:
            raise StoreFailedError("the keyring cannot be read or written") from None
        if len(key) != _KEY_BYTES:
            raise StoreFailedError("the keyring's webhooks.key does not have 32 bytes")
        return key

    def head(self) -> tuple[int, bytes] | None:
        """Size and root of the last checkpoint that was signed; None before the first. Raises `ConfigError`."""
        try:
            head = msgspec.json.decode((self._folder / _HEAD).read_bytes(), type=_Head)
            return head.size, bytes.fromhex(head.root)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, msgspec.MsgspecError):
            raise ConfigError("keyring: log.head cannot be read; restore the keyring of this data folder") from None

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """A lock against every other thread and process that signs for this log. Raises `StoreFailedError`."""
        try:
            descriptor = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError:
            raise StoreFailedError("the keyring cannot be written") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # a lock of the open file: threads of one process exclude each other
            yield
        finally:
            os.close(descriptor)

    def set_head(self, size: int, root: bytes) -> None:
        """Remember what is about to be signed, durable before this returns. The caller holds `exclusive`.

        Raises `StoreFailedError`.
        """
        try:
            self._replace(_HEAD, msgspec.json.encode(_Head(size, root.hex())))
        except OSError:
            raise StoreFailedError("the keyring cannot be written") from None

    def _replace(self, name: str, data: bytes) -> None:
        """Make a file whole or not at all, for those who read it without a lock. The caller holds `exclusive`."""
        new = self._folder / f"{name}.new"
        new.unlink(missing_ok=True)  # of one who died here
        self._create(new.name, data)
        new.replace(self._folder / name)
        _fsync_folder(self._folder)

    def _create(self, name: str, data: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        path = self._folder / name
        descriptor = os.open(path, flags, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
            written = os.write(descriptor, data)
            os.fsync(descriptor)
        except OSError:
            written = -1
        finally:
            os.close(descriptor)
        if written != len(data):  # a full disk: leave no half key behind
            path.unlink(missing_ok=True)
            raise OSError("the key was not written")
        _fsync_folder(self._folder)


def _fault_of_file(path: Path) -> str:
    return _fault_of(path, directory=False)


def _fault_of(path: Path, *, directory: bool) -> str:
    """What is wrong with who may read it; empty when nothing is."""
    wanted = 0o700 if directory else 0o600
    what = "the folder" if directory else "a file in it"
    try:
        status = path.lstat()
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not directory:
            return ""  # replaced or destroyed by another process since the folder was read
        return "keyring: the folder is missing; restore it, or make a new deployment"
    right_kind = stat.S_ISDIR(status.st_mode) if directory else stat.S_ISREG(status.st_mode)
    if not right_kind:
        return f"keyring: {what} is not a {'folder' if directory else 'regular file'}"
    if status.st_uid != os.geteuid():
        return f"keyring: {what} belongs to another user; run Keepless as its owner"
    if stat.S_IMODE(status.st_mode) != wanted:
        return f"keyring: {what} must have mode {wanted:04o}; set it with chmod"
    return ""


def _name(kek_id: Id) -> str:
    if parse(kek_id, Prefix.KEK) is None:
        raise ValueError("not the id of a KEK")
    return f"{kek_id}.key"


def _fsync_folder(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        raise StoreFailedError("the keyring cannot be written") from None


def open_keyring(url: str, *, create: bool = False) -> FileKeyring:
    """The keyring at a URL, checked; with `create`, a new one. Raises `ConfigError`."""
    parts = urlsplit(url)
    if parts.scheme != "file" or parts.netloc or not parts.path.startswith("/"):
        raise ConfigError("keyring_url: file:///FOLDER is the only kind of keyring of this version")
    folder = Path(unquote(parts.path))
    if create:
        return FileKeyring.initialise(folder)
    keyring = FileKeyring(folder)
    keyring.check()
    return keyring
