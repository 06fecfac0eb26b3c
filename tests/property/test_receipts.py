"""Any edit of a receipt file is detected; any history of appends gives one log."""

import itertools
import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st

from keepless.db import Database
from keepless.receipts import merkle
from keepless.receipts.checkpoint import VerifierKey
from keepless.receipts.verify import Finding, Verified, verify_receipt
from tests.support.golden import ROOT
from tests.support.log import make_log
from tests.unit.receipts.test_log import append, entries

GOLDEN = ROOT / "tests/golden/receipts"
DATA = (GOLDEN / "deleted.json").read_bytes()
KEY = VerifierKey.parse((GOLDEN / "log.vkey").read_text())


@settings(max_examples=400, deadline=None)
@given(st.integers(0, len(DATA)), st.integers(0, 40), st.binary(max_size=40))
def test_any_edit_is_detected(at: int, removed: int, inserted: bytes) -> None:
    edited = DATA[:at] + inserted + DATA[at + removed :]
    verdict = verify_receipt(edited, KEY)
    assert isinstance(verdict, Verified) == (edited == DATA)
    assert isinstance(verdict, Finding) != (edited == DATA)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_calmly(data: bytes) -> None:
    assert isinstance(verify_receipt(data, KEY), Finding)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_any_batches_make_one_consistent_history(batches: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _grow(Database(f"sqlite:///{folder}/log.sqlite"), batches)


def _grow(database: Database, batches: list[int]) -> None:
    database.create_all()
    log = make_log(database)
    heads = []
    for batch in batches:
        append(database, log, entries(batch))
        heads.append(log.signed_head()[0])
    with database.read() as tx:
        for old, new in itertools.pairwise(heads):
            proof = log.consistency(tx, old.size, new.size)
            assert merkle.verify_consistency(old.size, new.size, old.root, new.root, proof)
    assert heads[-1].size == sum(batches)
    database.close()
