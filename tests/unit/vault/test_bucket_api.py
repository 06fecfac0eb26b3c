"""Plain calls to a bucket: what is read of an answer, what is refused, how a token is come by."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

from keepless.errors import ConfigError
from keepless.vault.blobs import open_blobs
from keepless.vault.bucket_api import BucketError, GcsApi, S3Api, leaves
from tests.support.gcs import GcsSettings
from tests.support.moto import Moto


@pytest.fixture
def gcs() -> Iterator[GcsSettings]:
    server = GcsSettings()
    yield server
    server.stop()


def test_xml_is_read_as_paths_and_texts() -> None:
    xml = b'<?xml version="1.0"?><a xmlns="urn:x"><b>one</b><b> two </b><c><d/><e>&lt;3</e></c></a>'
    assert leaves(xml) == [("a/b", "one"), ("a/b", "two"), ("a/c/e", "<3")]


@pytest.mark.parametrize("xml", [b"", b"<a>", b"not xml", b"<a></b>", b"\xff\xfe"])
def test_what_is_not_xml_is_refused_without_its_text(xml: bytes) -> None:
    with pytest.raises(BucketError) as caught:
        leaves(xml)
    assert caught.value.__suppress_context__


def test_entities_are_not_expanded_without_end() -> None:
    bomb = '<!DOCTYPE a [<!ENTITY x0 "xxxxxxxxxx">' + "".join(
        f'<!ENTITY x{i} "{f"&x{i - 1};" * 10}">' for i in range(1, 9)
    )
    with pytest.raises(BucketError):
        leaves(f"{bomb}]><a>&x8;</a>".encode())


@pytest.mark.parametrize(
    "environment",
    [{}, {"AWS_ACCESS_KEY_ID": "a"}, {"AWS_SECRET_ACCESS_KEY": "b"}],
)
def test_s3_needs_credentials(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="AWS_ACCESS_KEY_ID"):
        S3Api.from_environment("kept", environment)


KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}


def test_the_default_endpoint_is_that_of_the_region() -> None:
    assert S3Api.from_environment("kept", KEYS | {"AWS_REGION": "us-west-2"}).endpoint == (
        "https://s3.us-west-2.amazonaws.com"
    )


@pytest.mark.parametrize(
    "endpoint", ["http://example.com", "ftp://127.0.0.1", "https://host/path", "host", "https://h?q"]
)
def test_an_endpoint_is_secure_or_on_this_machine(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="https"):
        S3Api.from_environment("kept", KEYS | {"AWS_ENDPOINT_URL": endpoint})
    with pytest.raises(ConfigError, match="https"):
        GcsApi.from_environment("kept", {"STORAGE_EMULATOR_HOST": endpoint})


@pytest.mark.parametrize("bucket", ["", "UPPER", "a", "x" * 64, "a/b", "-a-", "a" * 41])
def test_names_that_cannot_be(bucket: str) -> None:
    with pytest.raises(ConfigError, match="blobs_url"):
        S3Api.from_environment(bucket, KEYS)
    with pytest.raises(ConfigError, match="blobs_url"):
        GcsApi.from_environment(bucket, {})


@pytest.mark.parametrize("url", ["", "file://host/x", "file:x", "s3://", "s3://b/path", "gs://b?x=1", "ftp://b", "/x"])
def test_only_these_urls_are_stores(url: str) -> None:
    with pytest.raises(ConfigError, match="blobs_url"):
        open_blobs(url, {})


def test_a_redirect_is_not_followed(gcs: GcsSettings) -> None:
    gcs.status = 307
    api = S3Api.from_environment("kept", KEYS | {"AWS_ENDPOINT_URL": gcs.url})
    assert api.ask("versioning").status == 307
    assert len(gcs.asked) == 1


def test_uploads_that_cannot_be_listed_are_an_error(gcs: GcsSettings) -> None:
    for status, body in (
        (403, b""),
        (200, b"{}"),
        (200, b"<ListMultipartUploadsResult><Upload><Key>k</Key></Upload></ListMultipartUploadsResult>"),
    ):
        gcs.status, gcs.bucket = status, body
        for api in (
            S3Api.from_environment("kept", KEYS | {"AWS_ENDPOINT_URL": gcs.url}),
            GcsApi.from_environment("kept", {"STORAGE_EMULATOR_HOST": gcs.url, "GOOGLE_OAUTH_ACCESS_TOKEN": "t"}),
        ):
            with pytest.raises(BucketError):
                api.uploads()


def test_abort_of_what_is_gone_is_as_good(moto: Moto) -> None:
    bucket = moto.bucket()
    S3Api.from_environment(bucket, moto.s3_environment()).abort("ab/blob", "gone")


def test_the_token_of_a_service_account_is_asked_for_once(gcs: GcsSettings, tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    account = tmp_path / "account.json"
    account.write_text(
        json.dumps({"client_email": "me@x", "private_key": pem.decode(), "token_uri": f"{gcs.url}/token", "type": "x"})
    )
    environment = {"STORAGE_EMULATOR_HOST": gcs.url, "GOOGLE_APPLICATION_CREDENTIALS": str(account)}
    api = GcsApi.from_environment("kept", environment)
    for _ in range(2):
        assert api.settings("location").status == 200
    assert {authorization for _, _, authorization in gcs.asked} == {"Bearer from-account"}
    (form,) = gcs.forms
    head, claims, signature = parse_qs(form)["assertion"][0].split(".")

    def decoded(part: str) -> bytes:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))

    key.public_key().verify(decoded(signature), f"{head}.{claims}".encode(), PKCS1v15(), hashes.SHA256())
    said = json.loads(decoded(claims))
    assert (said["iss"], said["aud"], said["exp"] - said["iat"]) == ("me@x", f"{gcs.url}/token", 3600)
    assert api.credential()["token"] == "from-account"
    assert api.credential()["expires_at"].tzinfo is not None


@pytest.mark.parametrize("text", ["", "{}", "[]"])
def test_an_account_that_cannot_be_read_is_refused(tmp_path: Path, text: str) -> None:
    account = tmp_path / "account.json"
    account.write_text(text)
    with pytest.raises(ConfigError, match="service account"):
        GcsApi.from_environment("kept", {"GOOGLE_APPLICATION_CREDENTIALS": str(account)})


def test_a_key_that_is_none_gives_no_token(gcs: GcsSettings, tmp_path: Path) -> None:
    account = tmp_path / "account.json"
    account.write_text(json.dumps({"client_email": "me@x", "private_key": "no key", "token_uri": gcs.url}))
    environment = {"STORAGE_EMULATOR_HOST": gcs.url, "GOOGLE_APPLICATION_CREDENTIALS": str(account)}
    with pytest.raises(BucketError):
        GcsApi.from_environment("kept", environment).settings("location")
