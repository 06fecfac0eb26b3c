"""Is a bucket what was promised: every property in every colour, and what the guard makes of it."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from keepless.ids import Id
from keepless.vault.bucket_api import BucketError, GcsApi, S3Api
from keepless.vault.locations import (
    Finding,
    Findings,
    Light,
    LocationGuard,
    Property,
    check_gcs,
    check_local,
    check_s3,
    within,
)
from tests.support.clock import FakeClock
from tests.support.gcs import PROMISED, GcsSettings
from tests.support.moto import REGION, Moto

BLOCK = {
    "BlockPublicAcls": True,
    "IgnorePublicAcls": True,
    "BlockPublicPolicy": True,
    "RestrictPublicBuckets": True,
}
ABORT = {
    "ID": "a",
    "Filter": {"Prefix": ""},
    "Status": "Enabled",
    "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
}
POLICY = (
    '{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Principal":"*","Action":"s3:GetObject",'
    '"Resource":"arn:aws:s3:::{}/*"}}]}}'
)


class S3Bucket:
    """One bucket at the stand-in: how it is set up and what is found about it."""

    def __init__(self, moto: Moto, region: str = REGION) -> None:
        self.moto = moto
        self.name = moto.bucket(region)
        self._client = moto.client(region)
        self.block()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Amazon's call of that name, about this bucket."""
        return functools.partial(getattr(self._client, name), Bucket=self.name)

    def block(self, **changed: bool) -> None:
        self.put_public_access_block(PublicAccessBlockConfiguration=BLOCK | changed)

    def version(self, status: str) -> None:
        self.put_bucket_versioning(VersioningConfiguration={"Status": status})

    def own(self, ownership: str) -> None:
        self.put_bucket_ownership_controls(OwnershipControls={"Rules": [{"ObjectOwnership": ownership}]})

    def ask(self, wanted: str = "us") -> tuple[str | None, dict[Property, set[Light]]]:
        api = S3Api.from_environment(self.name, self.moto.s3_environment())
        region, findings = check_s3(api, wanted)
        return region, lights(findings)


def lights(findings: list[Finding]) -> dict[Property, set[Light]]:
    found: dict[Property, set[Light]] = {}
    for finding in findings:
        found.setdefault(finding.property, set()).add(finding.light)
    return found


@pytest.fixture
def bucket(moto: Moto) -> S3Bucket:
    return S3Bucket(moto)


def test_a_bucket_as_promised_is_green(bucket: S3Bucket) -> None:
    bucket.own("BucketOwnerEnforced")
    bucket.put_bucket_lifecycle_configuration(LifecycleConfiguration={"Rules": [ABORT]})
    region, found = bucket.ask()
    assert region == "us-east-1"
    assert set().union(*found.values()) == {Light.GREEN}
    assert set(found) == {
        Property.REGION,
        Property.PUBLIC_ACCESS,
        Property.UNIFORM_ACCESS,
        Property.VERSIONING,
        Property.RETENTION_LOCK,
        Property.REPLICATION,
        Property.LIFECYCLE,
    }


def test_what_only_keepless_sees_to_is_amber_and_still_written_to(bucket: S3Bucket) -> None:
    _, found = bucket.ask()
    assert found[Property.UNIFORM_ACCESS] == {Light.AMBER}
    assert found[Property.LIFECYCLE] == {Light.AMBER}
    assert not {Light.RED, Light.UNKNOWN} & set().union(*found.values())


def red(found: dict[Property, set[Light]]) -> set[Property]:
    return {name for name, lights in found.items() if Light.RED in lights}


@pytest.mark.parametrize("status", ["Enabled", "Suspended"])
def test_versioning_is_red_even_when_suspended(bucket: S3Bucket, status: str) -> None:
    bucket.version("Enabled")
    bucket.version(status)
    assert red(bucket.ask()[1]) == {Property.VERSIONING}


@pytest.mark.parametrize("name", BLOCK)
def test_public_access_is_red(bucket: S3Bucket, name: str) -> None:
    bucket.block(**{name: False})
    assert red(bucket.ask()[1]) == {Property.PUBLIC_ACCESS}
    bucket.delete_public_access_block()
    assert red(bucket.ask()[1]) == {Property.PUBLIC_ACCESS}


def test_a_public_policy_is_red(bucket: S3Bucket) -> None:
    bucket.delete_public_access_block()
    bucket.put_bucket_policy(Policy=POLICY.format(bucket.name))
    bucket.block()
    assert red(bucket.ask()[1]) == {Property.PUBLIC_ACCESS}


def test_objects_that_others_may_own_are_red(bucket: S3Bucket) -> None:
    bucket.own("ObjectWriter")
    assert red(bucket.ask()[1]) == {Property.UNIFORM_ACCESS}


def test_a_lock_is_red(bucket: S3Bucket) -> None:
    bucket.version("Enabled")
    bucket.put_object_lock_configuration(ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"})
    assert red(bucket.ask()[1]) == {Property.VERSIONING, Property.RETENTION_LOCK}


def test_replication_is_red(bucket: S3Bucket, moto: Moto) -> None:
    other = S3Bucket(moto)
    for each in (bucket, other):
        each.version("Enabled")
    rule = {
        "ID": "a",
        "Status": "Enabled",
        "Priority": 1,
        "Filter": {"Prefix": ""},
        "DeleteMarkerReplication": {"Status": "Disabled"},
        "Destination": {"Bucket": f"arn:aws:s3:::{other.name}"},
    }
    bucket.put_bucket_replication(
        ReplicationConfiguration={"Role": "arn:aws:iam::123456789012:role/r", "Rules": [rule]}
    )
    assert red(bucket.ask()[1]) == {Property.VERSIONING, Property.REPLICATION}


def test_another_region_is_red(moto: Moto) -> None:
    bucket = S3Bucket(moto, "eu-west-1")
    region, found = bucket.ask("us")
    assert (region, found[Property.REGION]) == ("eu-west-1", {Light.RED})
    assert bucket.ask("eu")[1][Property.REGION] == {Light.GREEN}
    assert bucket.ask("eu-west-2")[1][Property.REGION] == {Light.RED}


def test_a_bucket_that_is_not_there_is_unknown(moto: Moto) -> None:
    api = S3Api.from_environment("nosuchbucket", moto.s3_environment())
    region, findings = check_s3(api, "us")
    assert region is None
    assert {finding.light for finding in findings} == {Light.UNKNOWN}


# --- Google ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def gcs() -> Iterator[GcsSettings]:
    server = GcsSettings()
    yield server
    server.stop()


def ask_gcs(gcs: GcsSettings, wanted: str = "us") -> tuple[str | None, dict[Property, set[Light]]]:
    environment = {"STORAGE_EMULATOR_HOST": gcs.url, "GOOGLE_OAUTH_ACCESS_TOKEN": "token"}
    region, findings = check_gcs(GcsApi.from_environment("kept", environment), wanted)
    return region, lights(findings)


def test_a_gcs_bucket_as_promised_is_green(gcs: GcsSettings) -> None:
    region, found = ask_gcs(gcs)
    assert region == "us-east1"
    assert set().union(*found.values()) == {Light.GREEN}
    ((method, path, authorization),) = gcs.asked
    assert (method, authorization) == ("GET", "Bearer token")
    assert path.startswith("/storage/v1/b/kept?fields=location%2C")


@pytest.mark.parametrize(
    ("change", "expected", "light"),
    [
        ({"location": "EUROPE-WEST1"}, Property.REGION, Light.RED),
        ({"location": None}, Property.REGION, Light.UNKNOWN),
        (
            {"location": "US", "customPlacementConfig": {"dataLocations": ["US-EAST1", "EUROPE-WEST1"]}},
            Property.REGION,
            Light.RED,
        ),
        ({"iamConfiguration": {"uniformBucketLevelAccess": {"enabled": True}}}, Property.PUBLIC_ACCESS, Light.RED),
        (
            {
                "iamConfiguration": {
                    "publicAccessPrevention": "inherited",
                    "uniformBucketLevelAccess": {"enabled": True},
                }
            },
            Property.PUBLIC_ACCESS,
            Light.RED,
        ),
        ({"iamConfiguration": {"publicAccessPrevention": "enforced"}}, Property.UNIFORM_ACCESS, Light.RED),
        ({"versioning": {"enabled": True}}, Property.VERSIONING, Light.RED),
        ({"softDeletePolicy": {"retentionDurationSeconds": "604800"}}, Property.SOFT_DELETE, Light.RED),
        ({"softDeletePolicy": None}, Property.SOFT_DELETE, Light.UNKNOWN),
        ({"retentionPolicy": {"retentionPeriod": "1"}}, Property.RETENTION_LOCK, Light.RED),
        ({"objectRetention": {"mode": "Enabled"}}, Property.RETENTION_LOCK, Light.RED),
        ({"defaultEventBasedHold": True}, Property.RETENTION_LOCK, Light.RED),
        ({"lifecycle": None}, Property.LIFECYCLE, Light.AMBER),
    ],
)
def test_each_property_of_a_gcs_bucket(
    gcs: GcsSettings, change: dict[str, Any], expected: Property, light: Light
) -> None:
    gcs.bucket = PROMISED | change
    _, found = ask_gcs(gcs)
    assert found.pop(expected) == {light}
    assert set().union(*found.values()) == {Light.GREEN}


@pytest.mark.parametrize("location", ["US", "NAM4", "US-CENTRAL1"])
def test_american_places(gcs: GcsSettings, location: str) -> None:
    gcs.bucket = PROMISED | {"location": location}
    assert ask_gcs(gcs)[1][Property.REGION] == {Light.GREEN}


def test_a_pair_of_american_places(gcs: GcsSettings) -> None:
    gcs.bucket = PROMISED | {"location": "US", "customPlacementConfig": {"dataLocations": ["US-EAST1", "US-WEST1"]}}
    assert ask_gcs(gcs)[1][Property.REGION] == {Light.GREEN}


@pytest.mark.parametrize(("status", "answer"), [(403, {}), (500, {}), (200, b"<html>"), (200, b"[]"), (302, {})])
def test_a_gcs_bucket_that_does_not_say_is_unknown(gcs: GcsSettings, status: int, answer: Any) -> None:
    gcs.status, gcs.bucket = status, answer
    with pytest.raises(BucketError):
        ask_gcs(gcs)


# --- regions and the guard -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("region", "wanted", "expected"),
    [
        ("us", "us", True),
        ("us-east-1", "us", True),
        ("us-east-1", "us-east-1", True),
        ("us-east-10", "us-east-1", False),
        ("us", "us-east-1", False),
        ("europe-west1", "eu", True),
        ("eu-west-1", "eu", True),
        ("usx", "us", False),
        (None, "us", False),
    ],
)
def test_within(region: str | None, wanted: str, expected: bool) -> None:
    assert within(region, wanted) is expected


def guard_of(*findings: Findings | type[BucketError]) -> tuple[LocationGuard, FakeClock]:
    answers, clock = list(findings), FakeClock()

    def check() -> Findings:
        answer = answers.pop(0)
        if isinstance(answer, type):
            raise answer
        return answer

    return LocationGuard(Id("local"), check, clock), clock


GREEN: Findings = ("us", [Finding(Property.REGION, Light.GREEN), Finding(Property.LIFECYCLE, Light.AMBER)])
RED: Findings = ("us", [Finding(Property.REGION, Light.GREEN), Finding(Property.VERSIONING, Light.RED)])


def test_nothing_is_written_before_the_first_check() -> None:
    guard, _ = guard_of(GREEN)
    assert not guard.writable()
    assert guard.status()["says"] == "not checked"
    assert guard.check().holds
    assert guard.writable()
    assert guard.writable("us")
    assert not guard.writable("eu")


def test_a_bucket_that_turns_red_or_silent_refuses_and_recovers() -> None:
    guard, _ = guard_of(GREEN, RED, GREEN, BucketError, GREEN)
    expected = [True, False, True, False, True]
    reasons = [(), (Property.VERSIONING,), (), (Property.REACHABLE,), ()]
    for writable, refusing in zip(expected, reasons, strict=True):
        assert guard.check().refusing == refusing
        assert guard.writable() is writable


def test_a_verdict_ages() -> None:
    guard, clock = guard_of(GREEN, GREEN)
    guard.check()
    clock.advance_ms(2 * 3_600_000 - 1)
    assert guard.writable()
    clock.advance_ms(1)
    assert not guard.writable()
    assert guard.report() is None
    guard.check()
    assert guard.writable()


def test_the_status_says_why() -> None:
    guard, clock = guard_of(RED)
    guard.check()
    assert guard.status() == {
        "location": "local",
        "writable": False,
        "region": "us",
        "says": "us",
        "checked_at": clock.now_ms() // 1000,
        "findings": {"region": "green", "versioning": "red"},
    }


def test_of_several_findings_about_one_property_the_worst_is_said() -> None:
    lights_of = [Light.AMBER, Light.RED, Light.UNKNOWN, Light.GREEN]
    guard, _ = guard_of(("us", [Finding(Property.PUBLIC_ACCESS, light) for light in lights_of]))
    guard.check()
    assert guard.status()["findings"] == {"public_access": "red"}


def test_a_folder_says_plainly_where_it_is() -> None:
    for declared, light, says in ((None, Light.AMBER, "this machine, region undeclared"), ("us", Light.GREEN, "us")):
        assert check_local(declared) == (declared, [Finding(Property.REGION, light)])
        guard, _ = guard_of(check_local(declared))
        guard.check()
        assert guard.writable()
        assert guard.status()["says"] == says
