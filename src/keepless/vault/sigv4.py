"""AWS Signature Version 4 for calls without a body, on hashlib and hmac. Pure: the instant is an argument.

Holds: `Credentials`, `query_text`, `sign`. Leaves out: sending (bucket_api). Source: AWS General Reference, "Signature
Version 4 signing process"; the worked examples of the S3 API reference are the tests.
"""

import time
from dataclasses import dataclass, field
from hashlib import sha256
from hmac import digest
from urllib.parse import quote

__all__ = ["EMPTY", "Credentials", "query_text", "sign"]

EMPTY = sha256(b"").hexdigest()  # the digest of no body


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a bucket is asked with. Never shown."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


def query_text(query: dict[str, str]) -> str:
    """The canonical query: sorted, each name with a value, RFC 3986 escapes."""
    pairs = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in query.items())
    return "&".join(f"{name}={value}" for name, value in pairs)


def sign(
    credentials: Credentials,
    *,
    method: str,
    host: str,
    path: str,
    query: dict[str, str],
    region: str,
    at_s: int,
    headers: dict[str, str] | None = None,
) -> dict[str, str]:
    """The headers of a signed call to S3. `path` is escaped already; `at_s` in Unix seconds."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at_s))
    sent = {"host": host, "x-amz-content-sha256": EMPTY, "x-amz-date": stamp, **(headers or {})}
    if credentials.token:
        sent["x-amz-security-token"] = credentials.token
    names = ";".join(sorted(sent))
    lines = "".join(f"{name}:{sent[name]}\n" for name in sorted(sent))
    canonical = f"{method}\n{path}\n{query_text(query)}\n{lines}\n{names}\n{EMPTY}"
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
    key = b"AWS4" + credentials.secret_key.encode()
    for part in scope.split("/"):
        key = digest(key, part.encode(), sha256)
    signature = digest(key, to_sign.encode(), sha256).hex()
    sent["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope},SignedHeaders={names},Signature={signature}"
    )
    return sent
