"""Signature Version 4, against the worked examples of the S3 API reference ("Authenticating Requests, GET")."""

from keepless.vault.sigv4 import EMPTY, Credentials, query_text, sign

EXAMPLE = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
AT = 1369353600  # 2013-05-24T00:00:00Z
HOST = "examplebucket.s3.amazonaws.com"


def signature(path: str, query: dict[str, str], headers: dict[str, str] | None = None) -> str:
    signed = sign(
        EXAMPLE, method="GET", host=HOST, path=path, query=query, region="us-east-1", at_s=AT, headers=headers
    )
    return signed["authorization"].rpartition("Signature=")[2]


def test_get_an_object() -> None:
    assert (
        signature("/test.txt", {}, {"range": "bytes=0-9"})
        == "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    )


def test_ask_for_the_lifecycle() -> None:
    assert signature("/", {"lifecycle": ""}) == "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"


def test_list_objects() -> None:
    assert (
        signature("/", {"prefix": "J", "max-keys": "2"})
        == "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
    )


def test_a_query_is_sorted_and_escaped() -> None:
    assert query_text({"b": "x y/z~", "a": "", "A": "+"}) == "A=%2B&a=&b=x%20y%2Fz~"


def test_a_session_token_is_signed_and_never_shown() -> None:
    credentials = Credentials("access", "very-secret", "session-token")
    signed = sign(credentials, method="GET", host=HOST, path="/", query={}, region="us-east-1", at_s=AT)
    assert signed["x-amz-security-token"] == "session-token"
    assert "x-amz-security-token" in signed["authorization"]
    assert signed["x-amz-content-sha256"] == EMPTY
    assert "secret" not in repr(credentials)
    assert "session-token" not in repr(credentials)
