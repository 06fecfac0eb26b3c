"""The log on both databases: appending, proofs, checkpoints that cannot fork, erasing."""

import contextlib
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.db import Database
from keepless.ids import Id, Prefix, mint
from keepless.policy.data_class import DataClass
from keepless.policy.decision import Reason
from keepless.receipts import merkle
from keepless.receipts.checkpoint import LogForkError, VerifierKey, open_note
from keepless.receipts.log import Log, Sought
from keepless.receipts.statement import Entry, EntryKind, Fact, FactValue, StatementError, commitment, deleted
from keepless.receipts.tables import log_entry, log_head, log_node
from tests.support.log import ORIGIN, MemoryHeads, make_log
from tests.support.sqlite import fresh

ORG = Id("org_aaaaaaaaaaaaaaaaaaaaaaaa")


def entries(count: int, kind: EntryKind = EntryKind.CONTROLS_CHANGED) -> list[Entry]:
    return [Entry(kind, 1_764_000_000_000 + i, ORG, facts={Fact.EPOCH: i}) for i in range(count)]


def deletion() -> Entry:
    return deleted(
        at_ms=30,
        organization_id=ORG,
        project_id=mint(Prefix.PROJECT),
        object_id=mint(Prefix.OBJECT),
        data_class=DataClass.RELIABILITY_LOG,
        reason=Reason.UPSTREAM_CUT,
        cause=Reason.INTERNAL_ERROR,
        created_at_ms=10,
        deleted_at_ms=20,
        kek_id=mint(Prefix.KEK),
        location=Id("local"),
    )


def append(database: Database, log: Log, new: list[Entry]) -> list[int]:
    with database.write() as tx:
        return [appended.index for appended in log.append(tx, new)]


def test_entries_are_numbered_in_order_whatever_the_batches(database: Database) -> None:
    log = make_log(database)
    assert append(database, log, entries(3)) == [0, 1, 2]
    assert append(database, log, []) == []
    assert append(database, log, entries(5)) == [3, 4, 5, 6, 7]
    assert append(database, log, entries(1)) == [8]
    with database.read() as tx:
        assert log.size(tx) == 9
        assert [e.index for e in log.entries(tx, organization_id=ORG, limit=4)] == [8, 7, 6, 5]
        assert [e.index for e in log.entries(tx, kinds=[EntryKind.CONTROLS_CHANGED], before=2)] == [1, 0]
        assert log.entries(tx, kinds=[EntryKind.CAPTURED]) == []


def test_a_rolled_back_transaction_leaves_no_trace(database: Database) -> None:
    log = make_log(database)
    append(database, log, entries(2))
    with contextlib.suppress(ZeroDivisionError), database.write() as tx:
        log.append(tx, entries(4))
        raise ZeroDivisionError
    assert append(database, log, entries(1)) == [2]
    with database.read() as tx:
        assert tx.execute(sa.select(sa.func.count()).select_from(log_entry)).scalar_one() == 3


def test_every_entry_is_proved_under_the_signed_head(database: Database) -> None:
    log = make_log(database)
    append(database, log, entries(21))
    head, note = log.signed_head()
    assert open_note(note, VerifierKey.parse(log.key.text())) == head
    with database.read() as tx:
        for index in range(21):
            entry = log.entry(tx, index)
            assert entry is not None
            assert entry.salt is not None
            assert entry.body is not None
            leaf = merkle.leaf_hash(commitment(entry.salt, entry.body))
            path = log.inclusion(tx, index, head.size)
            assert merkle.verify_inclusion(leaf, index, head.size, path, head.root)
            assert log.proof(tx, index, head, note).startswith(f"c2sp.org/tlog-proof@v1\nindex {index}\n")


def test_consistency_between_two_signed_heads(database: Database) -> None:
    log = make_log(database)
    append(database, log, entries(5))
    first, _ = log.signed_head()
    append(database, log, entries(8))
    second, _ = log.signed_head()
    with database.read() as tx:
        proof = log.consistency(tx, first.size, second.size)
    assert merkle.verify_consistency(first.size, second.size, first.root, second.root, proof)


def test_a_receipt_id_only_for_deletions_and_only_for_its_organization(database: Database) -> None:
    log = make_log(database)
    with database.write() as tx:
        plain, receipted = log.append(tx, [*entries(1), deletion()])
    assert plain.receipt_id is None
    assert receipted.receipt_id is not None
    with database.read() as tx:
        found = log.receipt(tx, receipted.receipt_id, ORG)
        assert found is not None
        assert found.body is not None
        assert receipted.receipt_id.encode() in found.body
        assert log.receipt(tx, receipted.receipt_id) == found
        assert log.receipt(tx, receipted.receipt_id, mint(Prefix.ORGANIZATION)) is None
        assert log.receipt(tx, mint(Prefix.RECEIPT)) is None


def test_erasing_a_text_leaves_every_proof_valid(database: Database) -> None:
    log = make_log(database)
    append(database, log, entries(6))
    before, _ = log.signed_head()
    with database.read() as tx:
        kept = log.entry(tx, 2)
        path = log.inclusion(tx, 2, before.size)
    with database.write() as tx:
        log.erase(tx, [2, 3])
    append(database, log, entries(1))
    after, _ = log.signed_head()
    with database.read() as tx:
        erased = log.entry(tx, 2)
        assert erased is not None
        assert (erased.salt, erased.body) == (None, None)
        proof = log.consistency(tx, before.size, after.size)
    assert merkle.verify_consistency(before.size, after.size, before.root, after.root, proof)
    assert kept is not None
    assert kept.salt is not None
    assert kept.body is not None
    leaf = merkle.leaf_hash(commitment(kept.salt, kept.body))
    assert merkle.verify_inclusion(leaf, 2, before.size, path, before.root)


def test_the_same_body_never_has_the_same_leaf(database: Database) -> None:
    log = make_log(database)
    append(database, log, [entries(1)[0], entries(1)[0]])
    with database.read() as tx:
        first, second = log.nodes(tx, 0, 0, 2)
        bodies = {e.body for e in log.entries(tx)}
    assert len(bodies) == 1
    assert first != second


def test_an_empty_log_can_be_signed(database: Database) -> None:
    log = make_log(database)
    head, note = log.signed_head()
    assert (head.size, head.root) == (0, merkle.EMPTY_ROOT)
    assert note.startswith(f"{ORIGIN}\n0\n")
    append(database, log, entries(1))
    assert log.signed_head()[0].size == 1


def _shrink(tx: sa.Connection) -> None:
    tx.execute(log_head.update().values(size=2, frontier=b"x" * 32))


def _rewrite(tx: sa.Connection) -> None:
    tx.execute(log_node.update().where(log_node.c.level == 2).values(hash=b"y" * 32))


def test_a_log_that_does_not_continue_what_was_signed_is_not_signed(database: Database) -> None:
    heads = MemoryHeads()
    log = make_log(database, heads=heads)
    append(database, log, entries(4))
    log.checkpoint()
    remembered = heads.stored
    append(database, log, entries(3))
    for damage in (_rewrite, _shrink):
        with database.write() as tx:
            damage(tx)
        with pytest.raises(LogForkError):
            log.checkpoint()
        assert heads.stored == remembered


def test_a_head_is_remembered_once(database: Database) -> None:
    heads = MemoryHeads()
    log = make_log(database, heads=heads)
    append(database, log, entries(2))
    assert log.checkpoint() == log.checkpoint()
    assert heads.writes == 1


def test_many_threads_append_and_sign_one_history(database: Database) -> None:
    log = make_log(database)
    heads: list[tuple[int, bytes]] = []

    def work() -> None:
        for _ in range(10):
            append(database, log, entries(3))
            head, _ = log.signed_head()
            heads.append((head.size, head.root))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as tx:
        assert log.size(tx) == 120
        assert sorted(e.index for e in log.entries(tx, limit=200)) == list(range(120))
    final, _ = log.signed_head()
    assert len(heads) == 40
    with database.read() as tx:
        for size, root in heads:
            proof = log.consistency(tx, size, final.size)
            assert merkle.verify_consistency(size, final.size, root, final.root, proof)


def test_what_is_not_of_a_closed_type_is_refused(database: Database) -> None:
    log = make_log(database)
    refused = [
        Entry(EntryKind.CAPTURED, 1, facts={Fact.REASON: Id("a" * 1100)}),
        Entry(EntryKind.CAPTURED, 1, facts={Fact.REASON: Id('quo"te')}),
        Entry(EntryKind.CAPTURED, 1, facts={Fact.REASON: Id("\u00e9")}),
        Entry(EntryKind.CAPTURED, 1, facts={Fact.EPOCH: 2**53}),
    ]
    for entry in refused:
        with pytest.raises(StatementError), database.write() as tx:
            log.append(tx, [*entries(1), entry])
    with database.read() as tx:
        assert log.size(tx) == 0


def mixed(log: Log, database: Database, chance: random.Random) -> list[Entry]:
    """Entries of few actors, projects and kinds, in which everything is common and some pairs never come."""
    made = []
    for number in range(400):
        actor, project = chance.choice([*ACTORS, None]), chance.choice([*PROJECTS, None])
        kind = chance.choice(KINDS)
        facts: dict[Fact, FactValue] = {Fact.EPOCH: number} | ({} if actor is None else {Fact.ACTOR: actor})
        made.append(Entry(kind, 1_000 + number, ORG, project, facts=facts))
    append(database, log, made)
    return made


ACTORS = [Id(f"akey_{letter * 24}") for letter in "abc"]
PROJECTS = [Id(f"proj_{letter * 24}") for letter in "abc"]
KINDS = [EntryKind.CONTROLS_CHANGED, EntryKind.PERIOD_CHANGED, EntryKind.KEY_CREATED]


def some(chance: random.Random, of: list[Any]) -> frozenset[Any] | None:
    return chance.choice((None, frozenset(chance.sample(of, chance.randrange(1, 4)))))


def test_filters_together_find_what_each_of_them_lets_through(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, chance = make_log(database), random.Random(11)
    made = mixed(log, database, chance)
    with database.read() as tx:
        for number in range(120):
            monkeypatch.setattr("keepless.receipts.log._MOST_PARTS", chance.choice((1, 256)))
            sought = Sought(kinds=some(chance, KINDS), actors=some(chance, ACTORS), projects=some(chance, PROJECTS))
            below = chance.choice((None, chance.randrange(400)))
            expected = [
                index
                for index, entry in reversed(list(enumerate(made)))
                if (sought.kinds is None or entry.kind in sought.kinds)
                and (sought.actors is None or entry.actor_id in sought.actors)
                and (sought.projects is None or entry.project_id in sought.projects)
                and (below is None or index < below)
            ]
            found = log.sought(tx, ORG, sought, below=below, limit=9)
            assert [one.index for one in found] == expected[:9], number


@pytest.mark.parametrize(
    ("sought", "index"),
    [
        (Sought(kinds=frozenset(KINDS[:1])), "by_organization "),
        (Sought(actors=frozenset(ACTORS[:1])), "by_actor "),
        (Sought(projects=frozenset(PROJECTS[:1])), "by_project "),
        (Sought(actors=frozenset(ACTORS[:1]), kinds=frozenset(KINDS[:1])), "by_actor_kind "),
        (Sought(projects=frozenset(PROJECTS[:1]), kinds=frozenset(KINDS[:1])), "by_project_kind "),
        (Sought(actors=frozenset(ACTORS[:1]), projects=frozenset(PROJECTS[:1])), "by_actor_project "),
        (
            Sought(actors=frozenset(ACTORS), projects=frozenset(PROJECTS), kinds=frozenset(KINDS)),
            "by_actor_project ",
        ),
    ],
    ids=["kind", "actor", "project", "actor and kind", "project and kind", "actor and project", "all"],
)
def test_filters_together_read_one_index(tmp_path: Path, sought: Sought, index: str) -> None:
    """Without statistics, which is when a database is most easily wrong."""
    database = fresh(tmp_path)
    log = make_log(database)
    with database.read() as tx, watched(tx) as asked:
        log.sought(tx, ORG, sought, below=9, limit=5)
    with database.read() as tx:
        for statement, values in asked:
            told = " ".join(str(row) for row in tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values))
            assert f"USING INDEX log_entry_{index}" in told
            assert "TEMP B-TREE" not in told
            assert told.count("=?") == 1 + sum(
                each is not None for each in (sought.kinds, sought.actors, sought.projects)
            ) + (index == "by_actor_project " and sought.kinds is None)
    database.close()
    assert asked


def test_what_is_asked_of_one_object_is_found_by_it(tmp_path: Path) -> None:
    database = fresh(tmp_path)
    log = make_log(database)
    made = [deletion() for _ in range(3)]
    append(database, log, [*made, *entries(3)])
    with database.read() as tx, watched(tx) as asked:
        found = log.entries(tx, organization_id=ORG, kinds=[EntryKind.DELETED], object_id=made[1].object_id, before=9)
        assert [one.index for one in found] == [1]
        assert log.entries(tx, organization_id=ORG, kinds=[EntryKind.CAPTURED], object_id=made[1].object_id) == []
        other = mint(Prefix.ORGANIZATION)
        assert log.entries(tx, organization_id=other, object_id=made[1].object_id) == []
        assert [one.index for one in log.entries(tx, object_id=made[1].object_id)] == [1]
    with database.read() as tx:
        for statement, values in asked:
            told = " ".join(str(row) for row in tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values))
            assert "USING INDEX ix_log_entry_object_id (object_id=?" in told
    database.close()
    assert len(asked) == 4


@contextlib.contextmanager
def watched(tx: Connection) -> Iterator[list[tuple[str, Any]]]:
    """What is asked of the entries meanwhile."""
    asked: list[tuple[str, Any]] = []

    def hear(_: object, __: object, statement: str, values: object, *___: object) -> None:
        if "FROM log_entry" in statement:
            asked.append((statement, values))

    sa.event.listen(tx.engine, "before_cursor_execute", hear)
    yield asked
    sa.event.remove(tx.engine, "before_cursor_execute", hear)


def test_a_span_of_time_is_found_however_entries_overtook_each_other(database: Database) -> None:
    log, chance = make_log(database), random.Random(7)
    kinds = (EntryKind.CONTROLS_CHANGED, EntryKind.PERIOD_CHANGED)
    at, made = 1_000_000, list[Entry]()
    for _ in range(1_500):
        at += chance.randrange(40)
        late = chance.choice((0, 0, 0, chance.randrange(300)))
        made.append(Entry(chance.choice(kinds), at - late, ORG, facts={Fact.EPOCH: 1}))
    append(database, log, made[:900])
    append(database, log, made[900:])
    with database.read() as tx:
        lag = tx.execute(sa.select(log_head.c.most_lag)).scalar_one()
        assert 250 < lag <= 340
        for _ in range(150):
            low = chance.choice((None, chance.randrange(990_000, at)))
            high = chance.choice((None, chance.randrange(990_000, at + 500)))
            wanted = chance.choice((None, frozenset(kinds[:1])))
            below = chance.choice((None, chance.randrange(1_500)))
            sought = Sought(from_ms=low, to_ms=high, kinds=wanted)
            found = log.sought(tx, ORG, sought, below=below, limit=20)
            expected = [
                index
                for index, entry in reversed(list(enumerate(made)))
                if (low is None or entry.at_ms >= low)
                and (high is None or entry.at_ms < high)
                and (wanted is None or entry.kind in wanted)
                and (below is None or index < below)
            ]
            assert [one.index for one in found] == expected[:20]
