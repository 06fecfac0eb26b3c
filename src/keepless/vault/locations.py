"""Is the location what was promised? The bucket itself is asked, at start and every hour.

Holds: the properties, what each kind of location answers about them, `LocationGuard`, whose verdict the door obeys.
Leaves out: sending (bucket_api), the schedule of checks (app), the answer of `/readyz` (admin).

Green: the promise holds. Amber: it holds, but rests on Keepless alone (said, not refused). Red: it does not hold: soft
delete or versioning would keep what was deleted, a lock would refuse to delete, the region is another one. Unknown: the
bucket did not say. Red or unknown = no content is written there while inference goes on; so is a verdict that is older
than two hours.

Sources: Amazon S3 API Reference (bucket sub-resources); Cloud Storage JSON API, resource "Buckets".
"""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import msgspec

from keepless.clock import Clock
from keepless.ids import Id
from keepless.log import Event, emit
from keepless.vault.bucket_api import Answer, BucketError, GcsApi, S3Api, leaves

__all__ = [
    "Check",
    "Finding",
    "Light",
    "LocationGuard",
    "Property",
    "Report",
    "check_gcs",
    "check_local",
    "check_s3",
    "within",
]

GOOD_FOR_SECONDS: Final = 2 * 3600
DEFAULT_REGION: Final = "us"  # PRODUCT 5: customer data lives in the United States unless the operator says otherwise


class Property(StrEnum):
    """What is asked of a location; also the reason code of a refusal."""

    REACHABLE = "reachable"
    REGION = "region"
    PUBLIC_ACCESS = "public_access"
    UNIFORM_ACCESS = "uniform_access"
    VERSIONING = "versioning"
    SOFT_DELETE = "soft_delete"
    RETENTION_LOCK = "retention_lock"
    REPLICATION = "replication"
    LIFECYCLE = "lifecycle"


class Light(StrEnum):
    """The answer, from the best to the worst; see the module's text."""

    GREEN = "green"
    AMBER = "amber"
    UNKNOWN = "unknown"
    RED = "red"


@dataclass(frozen=True, slots=True)
class Finding:
    """One property and its light."""

    property: Property
    light: Light


@dataclass(frozen=True, slots=True)
class Report:
    """Everything found about one location at one instant (Unix ms). `region` None = undeclared."""

    location: Id
    region: str | None
    findings: tuple[Finding, ...]
    checked_at: int

    @property
    def holds(self) -> bool:
        """Whether content may be written there."""
        return not self.refusing

    @property
    def refusing(self) -> tuple[Property, ...]:
        """What forbids it."""
        return tuple(f.property for f in self.findings if f.light in {Light.RED, Light.UNKNOWN})


Findings = tuple[str | None, list[Finding]]
Check = Callable[[], Findings]


def within(region: str | None, wanted: str) -> bool:
    """Whether a region lies in another: `us-east1` in `us`, `eu-west-1` in `eu`, a region in itself."""
    if region is not None and region.startswith("europe-"):  # Google's name for what others call eu
        region = region.replace("europe", "eu", 1)
    return region is not None and (region == wanted or region.startswith(f"{wanted}-"))


def _light(holds: bool) -> Light:
    return Light.GREEN if holds else Light.RED


class LocationGuard:
    """The verdict about one location. `check` blocks (call it from a worker thread); the rest reads memory."""

    def __init__(self, location: Id, check: Check, clock: Clock) -> None:
        self.location: Final = location
        self._check = check
        self._clock = clock
        self._lock = threading.Lock()
        self._report: Report | None = None
        self._good_until = 0.0

    def check(self) -> Report:
        """Ask the location now. Never raises: what cannot be asked is unknown."""
        with self._lock:
            asked = self._clock.monotonic()
            try:
                region, findings = self._check()
            except BucketError:
                region, findings = None, [Finding(Property.REACHABLE, Light.UNKNOWN)]
            report = Report(self.location, region, tuple(findings), self._clock.now_ms())
            self._report, self._good_until = report, asked + GOOD_FOR_SECONDS
        emit(Event.LOCATION_CHECKED, location=self.location, writable=report.holds)
        for refusing in report.refusing:
            emit(Event.LOCATION_RED, location=self.location, reason=refusing)
        return report

    def report(self) -> Report | None:
        """The last report; None when there is none or it is too old to count."""
        return self._report if self._clock.monotonic() < self._good_until else None

    def writable(self, pinned: str | None = None) -> bool:
        """Whether content may be written there, also for an organization pinned to a region."""
        report = self.report()
        return report is not None and report.holds and (pinned is None or within(report.region, pinned))

    def status(self) -> dict[str, str | int | bool | dict[str, str] | None]:
        """For `/readyz`, `doctor` and the register of locations."""
        report = self.report()
        return {
            "location": str(self.location),
            "writable": self.writable(),
            "region": None if report is None else report.region,
            "says": "not checked" if report is None else (report.region or "this machine, region undeclared"),
            "checked_at": None if report is None else report.checked_at // 1000,
            "findings": {} if report is None else _worst(report.findings),
        }


def _worst(findings: Iterable[Finding]) -> dict[str, str]:
    """The worst light of each property: some are found out by several questions."""
    order = list(Light)
    return {f.property.value: f.light.value for f in sorted(findings, key=lambda f: order.index(f.light))}


def check_local(declared_region: str | None) -> Findings:
    """A folder of this machine: its region is what the operator declares."""
    return declared_region, [Finding(Property.REGION, Light.GREEN if declared_region else Light.AMBER)]


# --- Amazon S3 -------------------------------------------------------------------------------------------------------


def check_s3(api: S3Api, wanted_region: str) -> Findings:
    """Ask an S3 bucket. Raises `BucketError` when it cannot be reached at all."""
    region, light = _s3_region(api, wanted_region)
    found = [Finding(Property.REGION, light)]
    questions: tuple[tuple[Property, str, Callable[[Answer], Light]], ...] = (
        (Property.PUBLIC_ACCESS, "publicAccessBlock", _s3_public_access),
        (Property.PUBLIC_ACCESS, "policyStatus", _s3_policy),
        (Property.UNIFORM_ACCESS, "ownershipControls", _s3_ownership),
        (Property.VERSIONING, "versioning", _s3_versioning),
        (Property.RETENTION_LOCK, "object-lock", _s3_lock),
        (Property.REPLICATION, "replication", _s3_replication),
        (Property.LIFECYCLE, "lifecycle", _s3_lifecycle),
    )
    for asked, name, judge in questions:
        try:
            found.append(Finding(asked, judge(api.ask(name))))
        except BucketError:
            found.append(Finding(asked, Light.UNKNOWN))
    return region, found


def _s3_region(api: S3Api, wanted: str) -> tuple[str | None, Light]:
    answer = api.ask("location")
    if answer.status != 200:
        return None, Light.UNKNOWN
    text = "".join(text for path, text in leaves(answer.body) if path.endswith("LocationConstraint"))
    region = {"": "us-east-1", "EU": "eu-west-1"}.get(text, text)
    return region, _light(within(region, wanted))


def _values(answer: Answer, code_of_absence: str | None) -> dict[str, str] | None:
    """The last names and texts of an answer; None when the bucket says that there is no such setting."""
    texts = {path.rpartition("/")[2]: text for path, text in leaves(answer.body)} if answer.body else {}
    if answer.status == 200:
        return texts
    if answer.status == 404 and code_of_absence is not None and texts.get("Code") == code_of_absence:
        return None
    raise BucketError("the bucket does not say")


def _s3_public_access(answer: Answer) -> Light:
    names = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    values = _values(answer, "NoSuchPublicAccessBlockConfiguration") or {}
    return _light(all(values.get(name, "").lower() == "true" for name in names))


def _s3_policy(answer: Answer) -> Light:
    values = _values(answer, "NoSuchBucketPolicy")
    return _light(values is None or values.get("IsPublic", "").lower() == "false")


def _s3_ownership(answer: Answer) -> Light:
    values = _values(answer, "OwnershipControlsNotFoundError")
    if values is None:
        return Light.AMBER  # the public access block still ignores access lists
    return _light(values.get("ObjectOwnership") == "BucketOwnerEnforced")


def _s3_versioning(answer: Answer) -> Light:
    # "Suspended" is red as well: the versions of before stay readable.
    return _light("Status" not in (_values(answer, None) or {}))


def _s3_lock(answer: Answer) -> Light:
    return _light(_values(answer, "ObjectLockConfigurationNotFoundError") is None)


def _s3_replication(answer: Answer) -> Light:
    return _light(_values(answer, "ReplicationConfigurationNotFoundError") is None)


def _s3_lifecycle(answer: Answer) -> Light:
    """Best with a rule of the bucket's own that ends unfinished uploads; without it only the sweep does."""
    values = _values(answer, "NoSuchLifecycleConfiguration") or {}
    return Light.GREEN if "DaysAfterInitiation" in values else Light.AMBER


# --- Google Cloud Storage --------------------------------------------------------------------------------------------

_GCS_FIELDS: Final = (
    "location,locationType,customPlacementConfig,iamConfiguration,versioning,softDeletePolicy,retentionPolicy,"
    "objectRetention,defaultEventBasedHold,lifecycle"
)


def check_gcs(api: GcsApi, wanted_region: str) -> Findings:
    """Ask a GCS bucket. Raises `BucketError` when it cannot be reached or does not answer."""
    answer = api.settings(_GCS_FIELDS)
    if answer.status != 200:
        raise BucketError("the bucket does not say")
    try:
        bucket = msgspec.json.decode(answer.body, type=dict[str, Any])
    except msgspec.MsgspecError:
        raise BucketError("the bucket's answer is not JSON") from None
    places = _gcs_places(bucket)
    region = str(bucket.get("location") or "").lower() or None
    in_region = bool(places) and all(within(place, wanted_region) for place in places)
    iam, soft = _part(bucket, "iamConfiguration"), _part(bucket, "softDeletePolicy")
    seconds = soft.get("retentionDurationSeconds")
    locked = any(bucket.get(name) for name in ("retentionPolicy", "objectRetention", "defaultEventBasedHold"))
    rules = [_part(rule, "action").get("type") for rule in _part(bucket, "lifecycle").get("rule") or []]
    return region, [
        Finding(Property.REGION, _light(in_region) if region else Light.UNKNOWN),
        Finding(Property.PUBLIC_ACCESS, _light(iam.get("publicAccessPrevention") == "enforced")),
        Finding(Property.UNIFORM_ACCESS, _light(_part(iam, "uniformBucketLevelAccess").get("enabled") is True)),
        Finding(Property.VERSIONING, _light(not _part(bucket, "versioning").get("enabled"))),
        # A bucket that does not mention soft delete may have the default of seven days.
        Finding(Property.SOFT_DELETE, Light.UNKNOWN if seconds is None else _light(str(seconds) == "0")),
        Finding(Property.RETENTION_LOCK, _light(not locked)),
        Finding(Property.LIFECYCLE, Light.GREEN if "AbortIncompleteMultipartUpload" in rules else Light.AMBER),
    ]


def _part(value: Any, name: str) -> dict[str, Any]:
    part = value.get(name) if isinstance(value, dict) else None
    return part if isinstance(part, dict) else {}


def _gcs_places(bucket: dict[str, Any]) -> list[str]:
    """The places a bucket's bytes are in; NAM4 and NAM8 are pairs of American regions."""
    placed = _part(bucket, "customPlacementConfig").get("dataLocations")
    places = placed if isinstance(placed, list) else [bucket.get("location") or ""]
    named = {"nam4": "us", "nam8": "us", "eur4": "eu", "eur5": "eu", "eur7": "eu", "eur8": "eu"}
    return [named.get(place, place) for place in (str(place).lower() for place in places) if place]
