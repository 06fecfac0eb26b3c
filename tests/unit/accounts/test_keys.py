"""Keys: 256 random bits, found by digest, not shown by accident."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from time import sleep

import pytest
from argon2 import PasswordHasher

from keepless.accounts import keys
from keepless.accounts.keys import KeyKind, digest_of, hash_password, mint_key, mint_password, password_matches


@pytest.mark.parametrize(
    ("kind", "prefix", "id_prefix"),
    [
        (KeyKind.API, "sk-keepless-", "key_"),
        (KeyKind.ADMIN, "ak-keepless-", "akey_"),
        (KeyKind.OPERATOR, "ok-keepless-", "okey_"),
    ],
)
def test_a_key_says_what_it_is(kind: KeyKind, prefix: str, id_prefix: str) -> None:
    key = mint_key(kind)
    assert key.secret.startswith(prefix) and key.id.startswith(id_prefix)
    assert len(key.secret) - len(prefix) == 52  # 256 bits in base 32


def test_the_digest_is_of_the_whole_secret() -> None:
    key = mint_key(KeyKind.API)
    assert key.digest == hashlib.sha256(key.secret.encode()).digest() == digest_of(key.secret.encode())


def test_no_two_keys_are_alike() -> None:
    assert len({mint_key(KeyKind.API).secret for _ in range(1000)}) == 1000


def test_a_repr_and_a_hint_do_not_tell_the_secret() -> None:
    key = mint_key(KeyKind.ADMIN)
    assert key.secret not in repr(key) and key.digest.hex() not in repr(key) and repr(key.digest) not in repr(key)
    assert len(key.hint) <= 16 and key.hint == f"ak-...{key.secret[-4:]}"


def test_passwords_are_hashed_with_argon2id_and_a_salt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_hasher", PasswordHasher())
    password = mint_password()
    stored = hash_password(password)
    assert stored.startswith("$argon2id$v=19$m=65536,t=3,p=4$")  # RFC 9106, second recommended option
    assert len(stored) <= 200 and password not in stored
    assert stored != hash_password(password)
    assert password_matches(stored, password)
    assert not password_matches(stored, password + "x")
    assert not password_matches("damaged", password)


def test_nothing_makes_passwords_cheaper_than_argon2_recommends() -> None:
    source = Path(keys.__file__).read_text("utf-8")
    assert "_hasher: Final = PasswordHasher()\n" in source


def test_two_passwords_are_hashed_at_a_time_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    counting, at_once, most = Lock(), [0], [0]

    class Slow:
        def _one(self, *_: str) -> str:
            with counting:
                at_once[0] += 1
                most[0] = max(most[0], at_once[0])
            sleep(0.01)
            with counting:
                at_once[0] -= 1
            return "hash"

        hash = verify = _one

    monkeypatch.setattr(keys, "_hasher", Slow())
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda n: hash_password("x") if n % 2 else password_matches("hash", "x"), range(24)))
    assert most == [2]
