"""What an owner's DELETE of an object came to, as everybody is told it (DECISIONS 9, 13)."""

from keepless.errors import Code, ErrorType, Problem
from keepless.expiry.purge import Deletion, Outcome
from keepless.governance.change import not_found

__all__ = ["deleted"]


def deleted(done: Deletion) -> None:
    """Returns when it is gone. Raises `Problem` 404, 423 (held) or 503 (the store has not acknowledged yet)."""
    if done.outcome is Outcome.DELETED:
        return
    if done.outcome is Outcome.HELD:
        raise Problem(
            423,
            Code.HELD,
            f"A legal hold keeps this object from being deleted: {', '.join(done.hold_ids)}.",
            retry=False,
        )
    if done.outcome is Outcome.PENDING:
        raise Problem(
            503,
            Code.DELETION_PENDING,
            "The object is unreadable for good and answers 404 from now on; its store has not yet acknowledged that "
            "the bytes are gone. The next sweep finishes this; the same call then answers that it is deleted.",
            type=ErrorType.SERVER,
            headers={"retry-after": "30"},
        )
    raise not_found()
