"""A bucket that does not hold what was promised: no content is written there, inference goes on, and `/readyz` says
why. A green one keeps ciphertext and gives it up."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.moto import Moto
from tests.support.outside import Answer, Organization, call, comes_true
from tests.support.serve import Served, serve, upstream_models
from tests.support.upstream import MockUpstream

MARKER = "bucket-3af2c8-marker"


@pytest.fixture
def client(moto: Moto, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in moto.s3_environment().items():
        monkeypatch.setenv(name, value)
    return moto.client()


@pytest.fixture
def bucket(moto: Moto, client: Any) -> str:
    """As promised: no public access, one owner, no versions."""
    name = moto.bucket()
    every = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)
    client.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=every)
    client.put_bucket_ownership_controls(
        Bucket=name, OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    )
    return name


@pytest.fixture
def upstream() -> Iterator[MockUpstream]:
    with MockUpstream() as mock:
        yield mock


def served(folder: Path, upstream: MockUpstream, bucket: str) -> Any:
    return serve(folder, upstream_models(upstream.base_url), settings={"blobs_url": f"s3://{bucket}"})


def location(server: Served) -> tuple[int, dict[str, Any]]:
    answer = call(server.url, "GET", "/readyz", "")
    return answer.status, answer.json["location"]


def captured(customer: Organization) -> str:
    """The object of a failing request. A store that refuses for a moment keeps nothing of one: then of the next."""
    answers: list[Answer] = []

    def kept() -> bool:
        answers.append(customer.chat("error-500", MARKER))
        return "object=" in answers[-1].kept

    comes_true(kept)
    return answers[-1].object_id


def test_a_green_bucket_keeps_ciphertext_and_gives_it_up(
    tmp_path: Path, upstream: MockUpstream, bucket: str, client: Any
) -> None:
    with served(tmp_path, upstream, bucket) as server:
        customer = Organization.of(server.url, server.told)
        assert location(server)[0] == 200
        object_id = captured(customer)
        (stored,) = client.list_objects_v2(Bucket=bucket)["Contents"]
        assert object_id not in stored["Key"]
        assert MARKER.encode() not in client.get_object(Bucket=bucket, Key=stored["Key"])["Body"].read()
        assert not list((tmp_path / "data").glob("blobs/*")), "and nothing of it here"
        assert customer.admin("DELETE", f"/retained_objects/{object_id}").json["deleted"] is True
        assert "Contents" not in client.list_objects_v2(Bucket=bucket)


@pytest.mark.parametrize(
    ("harm", "more", "red"),
    [
        ("put_bucket_versioning", {"VersioningConfiguration": {"Status": "Enabled"}}, "versioning"),
        ("delete_public_access_block", {}, "public_access"),
        ("delete_bucket", {}, None),
    ],
)
def test_a_bucket_that_breaks_the_promise_is_not_written_to(
    tmp_path: Path, upstream: MockUpstream, bucket: str, client: Any, harm: str, more: dict[str, Any], red: str | None
) -> None:
    getattr(client, harm)(Bucket=bucket, **more)
    with served(tmp_path, upstream, bucket) as server:
        customer = Organization.of(server.url, server.told)
        status, said = location(server)
        assert status == 503 and said["writable"] is False
        assert red is None or said["findings"][red] == "red"
        assert customer.chat("ok", MARKER).status == 200, "inference goes on"
        failed = customer.chat("error-500", MARKER)
        assert (failed.status, failed.kept) == (502, "none")
        assert customer.retained() == {}
        explain = f"/explain/{failed.headers['x-request-id']}"
        comes_true(lambda: customer.admin("GET", explain).status == 200)
        assert customer.admin("GET", explain).json["discard"] == "location_red"
        assert red is None or "Contents" not in client.list_objects_v2(Bucket=bucket)
