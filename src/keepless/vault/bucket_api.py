"""Plain calls to a bucket that obstore does not make: its own settings, and the uploads that were never finished.

Holds: `S3Api` (signed XML calls), `GcsApi` (JSON API, and the XML API for uploads), their credentials.
Leaves out: what an answer means for the promise (locations), objects themselves (blobs).

Every call has a time-out, follows no redirect and reads at most 1 MiB of an answer; anything unexpected is a
`BucketError` without the server's text. Blocking: call from a worker thread.
"""

import base64
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote, urlencode, urlsplit
from xml.parsers import expat

import msgspec
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from keepless.errors import ConfigError, KeeplessError
from keepless.ids import ID_LENGTH, Id
from keepless.vault.sigv4 import Credentials, query_text, sign

__all__ = ["Answer", "BucketApi", "BucketError", "GcsApi", "S3Api", "Upload", "leaves"]

_SECONDS: Final = 10.0
_MOST: Final = 1 << 20
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]\Z")
_LOOPBACK: Final = {"127.0.0.1", "localhost", "::1"}
_METADATA: Final = "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token"
_SCOPE: Final = "https://www.googleapis.com/auth/devstorage.read_write"
_OAUTH: Final = "https://oauth2.googleapis.com/token"


class BucketError(KeeplessError):
    """The bucket could not be asked or gave an answer that cannot be read."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body of one call. The body is a bucket's own settings, never an object."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Upload:
    """One unfinished multipart upload, begun at `at` (Unix ms)."""

    key: str
    upload: str
    at: int


class BucketApi(Protocol):
    """The plain calls that the blob driver makes."""

    @property
    def name(self) -> Id:
        """The location's name in the catalogue."""

    def uploads(self) -> list[Upload]:
        """Unfinished multipart uploads (at most 1000 at a time). Raises `BucketError`."""

    def abort(self, key: str, upload: str) -> None:
        """Destroy one; gone already is as good. Raises `BucketError`."""


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:  # a signed call is for one address
        return None


class _Call(urllib.request.Request):
    """One call over TLS, or over plain HTTP to this machine."""

    def __init__(self, url: str, method: str, headers: Mapping[str, str], data: bytes | None = None) -> None:
        super().__init__(url, data=data, headers=dict(headers), method=method)


_opener: Final = urllib.request.build_opener(_Stay)


def _send(url: str, method: str, headers: Mapping[str, str], data: bytes | None = None) -> Answer:
    try:
        with _opener.open(_Call(url, method, headers, data), timeout=_SECONDS) as reply:
            return Answer(reply.status, reply.read(_MOST))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read(_MOST))
    except (OSError, HTTPException, ValueError):
        raise BucketError("the bucket cannot be reached") from None


def leaves(xml: bytes) -> list[tuple[str, str]]:
    """The texts of an XML document with their paths of local names, in order. Raises `BucketError`."""
    path: list[str] = []
    found: list[tuple[str, str]] = []
    text: list[str] = []
    parser = expat.ParserCreate(namespace_separator=" ")

    def begin(name: str, _attributes: object) -> None:
        path.append(name.rpartition(" ")[2])
        text.clear()

    def end(_name: str) -> None:
        if text:
            found.append(("/".join(path), "".join(text).strip()))
        text.clear()
        path.pop()

    parser.StartElementHandler = begin
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text.append
    try:
        parser.Parse(xml, True)
    except expat.ExpatError:
        raise BucketError("the bucket's answer is not XML") from None
    return found


def _uploads(xml: bytes) -> list[Upload]:
    found: list[dict[str, str]] = []
    for path, text in leaves(xml):
        above, _, name = path.rpartition("/")
        if above.endswith("MultipartUploadsResult/Upload") and name in {"Key", "UploadId", "Initiated"}:
            if not found or name in found[-1]:  # the fields of an upload come in any order, each once
                found.append({})
            found[-1][name] = text
    try:
        return [
            Upload(
                each["Key"],
                each["UploadId"],
                int(datetime.fromisoformat(each["Initiated"]).timestamp() * 1000),
            )
            for each in found
        ]
    except (KeyError, ValueError):
        raise BucketError("the bucket's answer is not a list of uploads") from None


def _endpoint(text: str) -> str:
    parts = urlsplit(text)
    secure = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    if not secure or parts.path not in {"", "/"} or parts.query:
        raise ConfigError("the bucket's endpoint must be https://HOST (http only on this machine)")
    return f"{parts.scheme}://{parts.netloc}"


def _location(kind: str, bucket: str) -> Id:
    if not _NAME.match(bucket):
        raise ConfigError("blobs_url: this cannot be the name of a bucket")
    name = f"{kind}:{bucket}"
    if len(name) > ID_LENGTH:
        raise ConfigError(f"blobs_url: the name of the bucket has more than {ID_LENGTH - 3} letters")
    return Id(name)


class S3Api:
    """Signed calls about one bucket, path style. Region and credentials as AWS's own tools take them."""

    def __init__(self, bucket: str, *, endpoint: str, region: str, credentials: Credentials) -> None:
        self.name: Final = _location("s3", bucket)
        self.endpoint: Final = _endpoint(endpoint)
        self.region: Final = region
        self.credentials: Final = credentials
        self._bucket = bucket

    @classmethod
    def from_environment(cls, bucket: str, environ: Mapping[str, str]) -> "S3Api":
        """Raises `ConfigError` for what is missing."""
        region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        access, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
        if not access or not secret:
            raise ConfigError("s3://: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_REGION)")
        endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")
        return cls(
            bucket,
            endpoint=endpoint or f"https://s3.{region}.amazonaws.com",
            region=region,
            credentials=Credentials(access, secret, environ.get("AWS_SESSION_TOKEN")),
        )

    def ask(self, what: str) -> Answer:
        """GET one sub-resource of the bucket, such as `versioning`. Raises `BucketError`."""
        return self._call("GET", f"/{self._bucket}", {what: ""})

    def uploads(self) -> list[Upload]:
        """See `BucketApi`."""
        answer = self._call("GET", f"/{self._bucket}", {"uploads": ""})
        if answer.status != 200:
            raise BucketError("the bucket does not list its uploads")
        return _uploads(answer.body)

    def abort(self, key: str, upload: str) -> None:
        """See `BucketApi`."""
        answer = self._call("DELETE", f"/{self._bucket}/{quote(key)}", {"uploadId": upload})
        if answer.status not in {200, 204, 404}:
            raise BucketError("the bucket did not abort the upload")

    def _call(self, method: str, path: str, query: dict[str, str]) -> Answer:
        headers = sign(
            self.credentials,
            method=method,
            host=urlsplit(self.endpoint).netloc,
            path=path,
            query=query,
            region=self.region,
            at_s=int(time.time()),
        )
        return _send(f"{self.endpoint}{path}?{query_text(query)}", method, headers)


class _ServiceAccount(msgspec.Struct):
    client_email: str
    private_key: str
    token_uri: str = _OAUTH


class _Token(msgspec.Struct):
    access_token: str
    expires_in: int


class GcsApi:
    """Calls about one bucket on Google Cloud Storage, with the token of a service account or of this machine."""

    def __init__(
        self, bucket: str, *, endpoint: str, account: _ServiceAccount | None, token: str | None = None
    ) -> None:
        self.name: Final = _location("gs", bucket)
        self.endpoint: Final = _endpoint(endpoint)
        self._bucket = bucket
        self._account = account
        self._token = token
        self._until = float("inf") if token else 0.0

    @classmethod
    def from_environment(cls, bucket: str, environ: Mapping[str, str]) -> "GcsApi":
        """Raises `ConfigError` for what cannot be read."""
        account = None
        if path := environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
            try:
                account = msgspec.json.decode(Path(path).read_bytes(), type=_ServiceAccount)
            except (OSError, msgspec.MsgspecError):
                raise ConfigError(
                    "gs://: GOOGLE_APPLICATION_CREDENTIALS must name the key file of a service account"
                ) from None
        endpoint = environ.get("STORAGE_EMULATOR_HOST") or "https://storage.googleapis.com"
        return cls(bucket, endpoint=endpoint, account=account, token=environ.get("GOOGLE_OAUTH_ACCESS_TOKEN"))

    def credential(self) -> Any:
        """The token in obstore's form. Raises `BucketError`."""
        token = self._bearer()
        until = None if self._until == float("inf") else datetime.fromtimestamp(self._until, UTC)
        return {"token": token, "expires_at": until}

    def settings(self, fields: str) -> Answer:
        """The bucket's own settings (JSON API). Raises `BucketError`."""
        url = f"{self.endpoint}/storage/v1/b/{quote(self._bucket, safe='')}?{urlencode({'fields': fields})}"
        return _send(url, "GET", self._headers())

    def uploads(self) -> list[Upload]:
        """See `BucketApi`."""
        answer = _send(f"{self.endpoint}/{self._bucket}?uploads=", "GET", self._headers())
        if answer.status != 200:
            raise BucketError("the bucket does not list its uploads")
        return _uploads(answer.body)

    def abort(self, key: str, upload: str) -> None:
        """See `BucketApi`."""
        url = f"{self.endpoint}/{self._bucket}/{quote(key)}?{urlencode({'uploadId': upload})}"
        if _send(url, "DELETE", self._headers()).status not in {200, 204, 404}:
            raise BucketError("the bucket did not abort the upload")

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._bearer()}"}

    def _bearer(self) -> str:
        if self._token is None or time.time() > self._until - 60:
            answer = self._by_account(self._account) if self._account else self._by_machine()
            if answer.status != 200:
                raise BucketError("no token for the bucket")
            try:
                token = msgspec.json.decode(answer.body, type=_Token)
            except msgspec.MsgspecError:
                raise BucketError("no token for the bucket") from None
            self._token, self._until = token.access_token, time.time() + token.expires_in
        return self._token

    @staticmethod
    def _by_machine() -> Answer:
        return _send(_METADATA, "GET", {"metadata-flavor": "Google"})

    @staticmethod
    def _by_account(account: _ServiceAccount) -> Answer:
        """RFC 7523: a signed assertion for a token."""
        now = int(time.time())
        claims = {"iss": account.client_email, "scope": _SCOPE, "aud": account.token_uri, "iat": now, "exp": now + 3600}
        parts = [msgspec.json.encode(part) for part in ({"alg": "RS256", "typ": "JWT"}, claims)]
        signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
        try:
            key = serialization.load_pem_private_key(account.private_key.encode(), None)
        except (ValueError, TypeError):
            raise BucketError("the key of the service account cannot be read") from None
        if not isinstance(key, RSAPrivateKey):
            raise BucketError("the key of the service account cannot be read")
        signature = base64.urlsafe_b64encode(key.sign(signed, PKCS1v15(), hashes.SHA256())).rstrip(b"=")
        form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": (signed + b"." + signature)}
        return _send(
            account.token_uri,
            "POST",
            {"content-type": "application/x-www-form-urlencoded"},
            urlencode(form).encode(),
        )
