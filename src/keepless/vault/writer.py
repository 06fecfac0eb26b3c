"""An object that is kept piece by piece: sealed as it comes, in bounded memory, never on disk in plain.

Holds: `ObjectWriter`. Leaves out: the first and the last step, which every kept object has in common (keeping).

1. transaction: the organization is there, the location may be written to, intent row;
2. pieces are sealed under a new DEK and written as they come: ciphertext only;
3. blob durable;
4. the KEK of its expiry day: if new, key file + fsync, then its row;
5. transaction: epoch compared, KEK still active, intent taken, row with the wrapped DEK and the sealed label. COMMIT
What the object is (its class, its end) may be decided as late as 5: `commit` may be asked again with a newer permit
after `StaleEpochError`. Without a commit nothing was kept. A writer has an hour (the orphans' grace): whoever takes
longer finds his intent taken, and keeps nothing.
"""

from enum import Enum, auto
from types import TracebackType
from typing import Final, Self

from keepless.content import Content, Purpose
from keepless.ids import Id, Prefix, mint
from keepless.policy.decision import Retain
from keepless.vault.envelope import StreamSealer, facts_under, new_dek, seal_label
from keepless.vault.errors import StoreFailedError, store_failures
from keepless.vault.keeping import Keeping, Sealed, Within, demand, nothing_more
from keepless.vault.rows import Kept
from keepless.vault.states import Step

__all__ = ["LONGEST_LABEL", "ObjectWriter"]

LONGEST_LABEL: Final = 900  # bytes


class _State(Enum):
    OPEN = auto()
    STORED = auto()  # the blob is durable
    ENDED = auto()


class ObjectWriter:
    """One object being written; a context manager that aborts what was not committed. One thread at a time."""

    def __init__(self, keeping: Keeping, organization_id: Id) -> None:
        self._keeping: Final = keeping
        self._organization_id: Final = organization_id
        self._blob: Final = mint(Prefix.BLOB)
        self.object_id: Final = mint(Prefix.OBJECT)
        self._dek: Final = new_dek()
        self._sealer: Final = StreamSealer(self._dek, self._blob, self._push)
        self._stored = 0  # bytes of ciphertext
        self.size = 0  # bytes of plaintext
        self._state = _State.OPEN
        with store_failures():
            keeping.begin(self._blob, organization_id)
        try:
            self._sink = keeping.place.store.begin(self._blob)
        except StoreFailedError:
            keeping.abandon(self._blob)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.abort()

    def write(self, content: Content) -> None:
        """Take the next piece. Raises `StoreFailedError`; then nothing more can be written."""
        demand(content, Content)
        if self._state is not _State.OPEN:
            raise ValueError("the writer takes no more")
        self._sealer.update(content.reveal(Purpose.SEAL))
        self.size += content.size

    def _push(self, sealed: memoryview) -> None:
        self._sink.write(sealed)
        self._stored += len(sealed)

    def commit(self, permit: Retain, *, label: Content | None = None, within: Within = nothing_more) -> Kept:
        """Keep what was written, with a small label of the customer's.

        `within` writes rows that belong to the object in the same transaction; it may be called more than once, each
        time in a new one. Raises `StaleEpochError` (decide again and commit again), `LocationRedError`,
        `StoreFailedError`; then nothing is kept.
        """
        demand(permit, Retain)
        if permit.organization_id != self._organization_id:
            raise ValueError("the permit is another organization's")
        if label is not None and label.size > LONGEST_LABEL:
            raise ValueError("a label is a small text")
        if self._state is _State.ENDED:
            raise ValueError("the writer has ended")
        with store_failures():
            if self._state is _State.OPEN:
                self._sealer.finish()
                self._sink.finish()
                self._state = _State.STORED
                self._keeping.at(Step.BLOB)
            facts = facts_under(permit, self.object_id)
            sealed = Sealed(
                object_id=self.object_id,
                blob=self._blob,
                dek=self._dek,
                size=self._stored,
                label=None if label is None else seal_label(self._dek, facts, label.reveal(Purpose.SEAL)),
            )
            row = self._keeping.commit(sealed, permit, self._keeping.kek(permit), within)
        self._state = _State.ENDED
        return row

    def abort(self) -> None:
        """Leave nothing, if it was not committed."""
        if self._state is not _State.ENDED:
            if self._state is _State.OPEN:
                self._sink.abort()
            self._state = _State.ENDED
            self._keeping.abandon(self._blob)
