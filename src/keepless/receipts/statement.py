"""What the log can say: a closed list of kinds, each a small record of ids, enums, whole numbers and instants.

Holds: `EntryKind`, `Fact` (the closed list of field names), `Entry`, its canonical bytes, and the salted commitment
that is the leaf. Leaves out: storing and proving (`log`, `bundle`), the texts people read (command line and
console).

An entry holds metadata only (DECISIONS 16): no content, no name, no size or digest of plaintext (the size of a
ciphertext would tell it), nothing that a client typed. Canonical bytes are RFC 8785 for what we allow: sorted ASCII
keys, no floats, integers within 53 bits, text that needs no escape.

leaf data = SHA-256(salt || body), leaf hash = SHA-256(0x00 || leaf data), with 32 random bytes of salt an entry
from the first entry on: with body and salt erased, nothing can be guessed from the leaf while every proof stays
valid.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Final

import msgspec

from keepless.errors import KeeplessError
from keepless.ids import Id
from keepless.policy.data_class import DataClass
from keepless.policy.decision import Reason

__all__ = [
    "BODY_BYTES",
    "SALT_BYTES",
    "SUBJECTS",
    "VERSION",
    "Entry",
    "EntryKind",
    "Fact",
    "FactValue",
    "StatementError",
    "body_of",
    "canonical",
    "captured",
    "commitment",
    "deleted",
    "key_destroyed",
    "new_salts",
]

VERSION: Final = 1
SALT_BYTES: Final = 32
BODY_BYTES: Final = 1024
_MAX_INTEGER: Final = 2**53 - 1
_TEXTS: Final = (Id, StrEnum)


class StatementError(KeeplessError):
    """An entry holds something that the log does not take."""


class EntryKind(StrEnum):
    """What happened. A kind is never renamed: it is part of signed history."""

    ORGANIZATION_CREATED = "organization_created"
    ORGANIZATION_DELETED = "organization_deleted"
    PROJECT_CREATED = "project_created"
    PROJECT_CHANGED = "project_changed"
    PROJECT_ARCHIVED = "project_archived"
    MEMBER_ADDED = "member_added"
    MEMBER_CHANGED = "member_changed"
    MEMBER_REMOVED = "member_removed"
    INVITE_CREATED = "invite_created"
    INVITE_ACCEPTED = "invite_accepted"
    INVITE_REVOKED = "invite_revoked"
    LINK_CREATED = "link_created"  # with which a member signs in, once
    PROOF_CHANGED = "proof_changed"  # the password of a member
    SIGNED_IN = "signed_in"
    SIGN_IN_REFUSED = "sign_in_refused"
    SIGNED_OUT = "signed_out"
    KEY_CREATED = "key_created"  # an API key, admin key or operator key
    KEY_CHANGED = "key_changed"
    KEY_REVOKED = "key_revoked"
    LIMITS_CHANGED = "limits_changed"
    CONTROLS_CHANGED = "controls_changed"  # data controls of an organization or a project
    PERIOD_CHANGED = "period_changed"  # the retention period of one class
    OPT_OUT_ACKNOWLEDGED = "opt_out_acknowledged"  # PRODUCT 3: the owner stays responsible for safe use
    PURGE_REQUESTED = "purge_requested"
    PURGE_FINISHED = "purge_finished"
    CAPTURED = "captured"  # an object came to be kept
    OPENING_REQUESTED = "opening_requested"  # somebody asked to see the content of an object
    OPENING_APPROVED = "opening_approved"  # a second person allowed it, until an instant
    OPENING_REFUSED = "opening_refused"
    OPENING_ENDED = "opening_ended"  # its time was over, or somebody ended it
    OPENED = "opened"  # its content was shown under an approved request
    EXPORT_BEGUN = "export_begun"  # an owner began to take along what exists of a feature
    EXPORTED = "exported"  # how far that came: the statement of a receipt
    DELETED = "deleted"  # an object is destroyed: the statement of a receipt
    KEY_DESTROYED = "key_destroyed"  # a key-encryption key: every copy of what it wrapped is dead
    HOLD_PLACED = "hold_placed"
    HOLD_RELEASED = "hold_released"
    CASE_OPENED = "case_opened"
    CASE_CONFIRMED = "case_confirmed"
    CASE_EXTENDED = "case_extended"
    CASE_CLOSED = "case_closed"
    ACCESS_REFUSED = "access_refused"  # somebody tried what was not theirs to do
    REQUEST_REFUSED = "request_refused"  # a data control or a hold did not let a request through
    REFERENCE_ERASED = "reference_erased"  # what an operator had typed
    ENTRY_ERASED = "entry_erased"  # what another entry said
    WEBHOOK_CREATED = "webhook_created"  # ids of events go to one more place of the owner's
    WEBHOOK_CHANGED = "webhook_changed"
    WEBHOOK_DELETED = "webhook_deleted"


class Fact(StrEnum):
    """The names of what an entry may say besides kind, instant, organization, project and object."""

    ACTOR = "actor"  # the key or member that did it
    AUTHORITY = "authority"
    BATCH_OFF = "batch_off"
    CASE_ID = "case_id"
    CAUSE = "cause"
    CLASSES = "classes"  # bit i = the i-th member of DataClass
    CODE = "code"  # of a refusal
    COMPLETE = "complete"  # nothing that was asked for is missing
    CREATED_AT = "created_at_ms"
    CREATED_BEFORE = "created_before_ms"
    CREATED_FROM = "created_from_ms"
    DATA_CLASS = "class"
    DAYS = "days"
    DAYS_BEFORE = "days_before"
    DELETED_AT = "deleted_at_ms"
    DESTROYED = "destroyed"
    ENDS_AT = "ends_at_ms"
    ENDPOINT = "endpoint"  # a path of the API, of a closed list
    ENTRY = "entry"  # the index of another entry
    EPOCH = "epoch"
    EXPIRES_AT = "expires_at_ms"
    EXPIRY_DAY = "expiry_day"
    EXPORT_ID = "export_id"
    FINE_TUNING_OFF = "fine_tuning_off"
    HELD = "held"
    HOLD_ID = "hold_id"
    INFERENCE_LOGGING_OFF = "inference_logging_off"
    INVITE_ID = "invite_id"
    KEK_ID = "kek_id"
    KEK_KIND = "kek_kind"
    KEY_ID = "key_id"
    LOCATION = "location"
    MEMBER_ID = "member_id"
    METHOD = "method"  # how a person signed in
    MINUTES = "minutes"
    MODEL = "model"  # an id of the operator's catalogue
    OBJECTS = "objects"
    OPENING_ID = "opening_id"
    PERMISSION = "permission"
    PURGE_ID = "purge_id"
    REASON = "reason"
    REQUEST_ID = "request_id"
    REQUESTS_PER_DAY = "requests_per_day"
    REQUESTS_PER_MINUTE = "requests_per_minute"
    REVIEW_AT = "review_at_ms"
    ROLE = "role"
    SOURCE = "source"
    TERMS_VERSION = "terms_version"
    TIMES = "times"
    TOKENS_PER_MINUTE = "tokens_per_minute"
    WEBHOOK_ID = "webhook_id"
    ZERO_DATA_RETENTION = "zero_data_retention"


FactValue = Id | StrEnum | int | bool | None
_WITH_RECEIPT: Final = frozenset({EntryKind.DELETED, EntryKind.EXPORTED})
_NAMES: Final = {fact: fact.value for fact in Fact}
# What an entry is about, the first of these that it names; a purge only when nothing nearer is named.
SUBJECTS: Final = (
    Fact.HOLD_ID,
    Fact.CASE_ID,
    Fact.OPENING_ID,
    Fact.KEY_ID,
    Fact.MEMBER_ID,
    Fact.INVITE_ID,
    Fact.WEBHOOK_ID,
    Fact.EXPORT_ID,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened at `at_ms` (Unix milliseconds). A fact that is None is left out."""

    kind: EntryKind
    at_ms: int
    organization_id: Id | None = None
    project_id: Id | None = None
    object_id: Id | None = None
    facts: Mapping[Fact, FactValue] = field(default_factory=dict)

    @property
    def has_receipt(self) -> bool:
        """Whether an entry of this kind is what a receipt states."""
        return self.kind in _WITH_RECEIPT

    @property
    def actor_id(self) -> Id | None:
        """Who did it; None: the platform itself, or nobody who is known."""
        actor = self.facts.get(Fact.ACTOR)
        return actor if isinstance(actor, Id) else None

    @property
    def subject_id(self) -> Id | None:
        """What it is about."""
        for fact in SUBJECTS:
            named = self.facts.get(fact)
            if isinstance(named, Id):
                return named
        purge = self.facts.get(Fact.PURGE_ID)
        inner = self.object_id or (purge if isinstance(purge, Id) else None)
        return inner or self.project_id or self.organization_id


def canonical(value: object) -> bytes:
    """RFC 8785 bytes of a value made of dicts with ASCII keys, lists, text, integers, booleans and None."""
    return msgspec.json.encode(value, order="sorted")


def new_salts(count: int) -> list[bytes]:
    """The salts of some entries."""
    together = os.urandom(SALT_BYTES * count)
    return [together[at : at + SALT_BYTES] for at in range(0, len(together), SALT_BYTES)]


def commitment(salt: bytes, body: bytes) -> bytes:
    """The leaf data of an entry: tells nothing about the body without the salt."""
    return sha256(salt + body).digest()


def body_of(entry: Entry, receipt_id: Id | None = None) -> bytes:
    """The canonical bytes of an entry. Raises `StatementError` for a value that is not of a closed type."""
    if type(entry.kind) is not EntryKind or type(entry.at_ms) is not int:
        raise StatementError("an entry has a kind and an instant")
    body: dict[str, FactValue | str] = {"v": VERSION, "kind": entry.kind, "at_ms": entry.at_ms}
    named = (
        ("organization_id", entry.organization_id),
        ("project_id", entry.project_id),
        ("object_id", entry.object_id),
        ("receipt_id", receipt_id),
    )
    for name, id_ in named:
        if id_ is not None:
            if type(id_) is not Id:
                raise StatementError("an entry names things by ids of ours")
            body[name] = str(id_)
    _add_facts(body, entry.facts)
    encoded = canonical(body)
    if len(encoded) > BODY_BYTES or not encoded.isascii() or b"\\" in encoded:
        raise StatementError("an entry is at most 1024 bytes of plain ASCII")
    return encoded


def _add_facts(body: dict[str, FactValue | str], facts: Mapping[Fact, FactValue]) -> None:
    for fact, value in facts.items():
        if type(fact) is not Fact:
            raise StatementError("a fact has a name of the closed list")
        if value is None:
            continue
        if isinstance(value, int):
            if not -_MAX_INTEGER <= value <= _MAX_INTEGER:
                raise StatementError("a whole number of the log fits into 53 bits")
            body[_NAMES[fact]] = value
        elif isinstance(value, _TEXTS):
            body[_NAMES[fact]] = str(value)
        else:
            raise StatementError("a fact is an id, an enum member, a whole number or a boolean")


def captured(
    *,
    at_ms: int,
    organization_id: Id,
    project_id: Id,
    object_id: Id,
    data_class: DataClass,
    reason: Reason,
    epoch: int,
    expires_at_ms: int | None,
    location: Id | StrEnum,
    request_id: Id | None = None,
) -> Entry:
    """An object came to be kept, and under which policy."""
    facts: dict[Fact, FactValue] = {
        Fact.DATA_CLASS: data_class,
        Fact.REASON: reason,
        Fact.EPOCH: epoch,
        Fact.EXPIRES_AT: expires_at_ms,
        Fact.LOCATION: location,
        Fact.REQUEST_ID: request_id,
    }
    return Entry(EntryKind.CAPTURED, at_ms, organization_id, project_id, object_id, facts)


def deleted(
    *,
    at_ms: int,
    organization_id: Id,
    project_id: Id,
    object_id: Id,
    data_class: DataClass,
    reason: Reason,
    cause: StrEnum,
    created_at_ms: int,
    deleted_at_ms: int,
    kek_id: Id,
    location: Id | StrEnum,
    purge_id: Id | None = None,
) -> Entry:
    """An object is destroyed: its key at `deleted_at_ms`, its stored bytes acknowledged gone by `at_ms`."""
    facts: dict[Fact, FactValue] = {
        Fact.DATA_CLASS: data_class,
        Fact.REASON: reason,
        Fact.CAUSE: cause,
        Fact.CREATED_AT: created_at_ms,
        Fact.DELETED_AT: deleted_at_ms,
        Fact.KEK_ID: kek_id,
        Fact.LOCATION: location,
        Fact.PURGE_ID: purge_id,
    }
    return Entry(EntryKind.DELETED, at_ms, organization_id, project_id, object_id, facts)


def key_destroyed(
    *, at_ms: int, kek_id: Id, kek_kind: StrEnum, location: Id | StrEnum, expiry_day: int | None = None
) -> Entry:
    """A key-encryption key is destroyed; it belongs to no single organization. `expiry_day`: days since 1970."""
    facts: dict[Fact, FactValue] = {
        Fact.KEK_ID: kek_id,
        Fact.KEK_KIND: kek_kind,
        Fact.LOCATION: location,
        Fact.EXPIRY_DAY: expiry_day,
    }
    return Entry(EntryKind.KEY_DESTROYED, at_ms, object_id=kek_id, facts=facts)
