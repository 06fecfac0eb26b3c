"""What is told to a client whose file is refused. Fixed texts; numbers and names are of our own settings and tables.

Holds: one function a refusal. Leaves out: refusals of forms and parameters (gateway).
"""

from keepless.errors import Code, ErrorType, Problem
from keepless.policy.data_class import Feature
from keepless.policy.decision import Discard, DiscardReason
from keepless.policy.refusal import feature_refused

__all__ = [
    "deletion_pending",
    "empty",
    "held",
    "no_room",
    "no_such_file",
    "not_kept",
    "retention_conflict",
    "too_large",
    "too_many",
]


def no_such_file() -> Problem:
    """Not there, another project's, expired or deleted: always the same answer (DECISIONS 9)."""
    return Problem(404, Code.NOT_FOUND, "No such File object.", param="id")


def empty() -> Problem:
    """Nothing can be done with a file of no bytes."""
    return Problem(400, Code.INVALID_VALUE, "The file is empty.", param="file")


def too_large(limit: int) -> Problem:
    """`limit` in bytes."""
    return Problem(
        413, Code.REQUEST_TOO_LARGE, f"The file is larger than {limit} bytes (limits.file_bytes).", param="file"
    )


def too_many(setting: str, limit: int) -> Problem:
    """The organization has as much as it may have."""
    return Problem(
        413,
        Code.REQUEST_TOO_LARGE,
        f"The files of this organization would exceed its limit of {limit} (limits.{setting}). Delete some first.",
        param="file",
    )


def no_room(setting: str, limit: int) -> Problem:
    """The organization has as much as it may have, with what its pending uploads become."""
    return Problem(
        413,
        Code.REQUEST_TOO_LARGE,
        f"The files of this organization and its pending uploads would exceed its limit of {limit} "
        f"(limits.{setting}). Delete files, or complete or cancel uploads, first.",
        param="bytes",
    )


def retention_conflict() -> Problem:
    """A switch of the request forbids what the call is for (DECISIONS 8)."""
    return Problem(
        400,
        Code.RETENTION_CONFLICT,
        "This call keeps a file, and a privacy switch of the request forbids that anything is kept.",
    )


def not_kept(discard: Discard, feature: Feature) -> Problem:
    """The decision was to keep nothing, and a file cannot be that."""
    if discard.reason is DiscardReason.REQUEST_FORBIDS:
        return retention_conflict()
    if discard.reason is DiscardReason.POLICY_UNREADABLE:
        return Problem(
            503,
            Code.POLICY_UNREADABLE,
            "The data controls cannot be read at the moment, so nothing may be kept.",
            type=ErrorType.SERVER,
            retry=False,
        )
    return feature_refused(feature, discard)


def held(hold_ids: tuple[str, ...]) -> Problem:
    """A legal hold wins over DELETE (DECISIONS 10)."""
    return Problem(
        423, Code.HELD, f"A legal hold keeps this file from being deleted: {', '.join(hold_ids)}.", retry=False
    )


def deletion_pending() -> Problem:
    """The key is destroyed, the store has not answered (DECISIONS 13)."""
    return Problem(
        503,
        Code.DELETION_PENDING,
        "The file is unreadable for good and answers 404 from now on; its store has not yet acknowledged that the "
        "bytes are gone. The next sweep finishes this; the same call then answers that it is deleted.",
        type=ErrorType.SERVER,
        headers={"retry-after": "30"},
    )
