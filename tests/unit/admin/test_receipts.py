"""Receipts over HTTP: the file that is served verifies offline under the key that is served."""

from pathlib import Path

from keepless.ids import Prefix, mint
from keepless.receipts.checkpoint import VerifierKey
from keepless.receipts.verify import Verified, verify_paths, verify_receipt
from tests.support.asgi import call
from tests.support.platform import Platform

RECEIPTS = "/organization/receipts"


def destroyed(here: Platform, count: int) -> list[str]:
    ids = [here.put().id for _ in range(count)]
    for object_id in ids:
        here.json("DELETE", f"/organization/retained_objects/{object_id}")
    return ids


def test_a_receipt_verifies_offline(anywhere: Platform, tmp_path: Path) -> None:
    (object_id,) = destroyed(anywhere, 1)
    (item,) = anywhere.json("GET", RECEIPTS)["data"]
    assert (item["object_id"], item["class"], item["cause"]) == (object_id, "reliability_log", "customer")
    answer = anywhere.ask("GET", f"{RECEIPTS}/{item['id']}")
    assert answer.headers["content-type"] == "application/json"
    key = call(anywhere.app, "GET", "/log/key").body
    found = verify_receipt(answer.body, VerifierKey.parse(key.decode()))
    assert isinstance(found, Verified)
    assert (found.receipt_id, found.object_id) == (item["id"], object_id)
    (tmp_path / "log.vkey").write_bytes(key)
    (tmp_path / "one.json").write_bytes(answer.body)
    assert verify_paths([tmp_path]).ok


def test_pages_newest_first(anywhere: Platform) -> None:
    ids = destroyed(anywhere, 5)
    first = anywhere.json("GET", f"{RECEIPTS}?limit=3")
    rest = anywhere.json("GET", f"{RECEIPTS}?limit=3&after={first['last_id']}")
    assert (first["has_more"], rest["has_more"]) == (True, False)
    assert [item["object_id"] for item in [*first["data"], *rest["data"]]] == ids[::-1]
    assert [i["object_id"] for i in anywhere.json("GET", f"{RECEIPTS}?object_id={ids[0]}")["data"]] == [ids[0]]
    assert anywhere.error("GET", f"{RECEIPTS}?after={mint(Prefix.RECEIPT)}") == (404, "not_found")


def test_an_erased_statement_is_listed_but_proves_nothing(here: Platform) -> None:
    destroyed(here, 1)
    (item,) = here.json("GET", RECEIPTS)["data"]
    with here.rig.database.write() as tx:
        here.rig.log.erase(tx, [item["log_index"]])
    (left,) = here.json("GET", RECEIPTS)["data"]
    assert (left["id"], left["class"], left["deleted_at"]) == (item["id"], None, None)
    assert here.error("GET", f"{RECEIPTS}/{item['id']}") == (404, "not_found")


def test_a_log_that_does_not_continue_what_was_signed_gives_no_proof(here: Platform) -> None:
    destroyed(here, 1)
    (item,) = here.json("GET", RECEIPTS)["data"]
    here.ask("GET", f"{RECEIPTS}/{item['id']}")
    with here.rig.log._heads.exclusive():
        here.rig.log._heads.set_head(10_000, b"\0" * 32)
    for answer in (here.ask("GET", f"{RECEIPTS}/{item['id']}"), call(here.app, "GET", "/log/checkpoint")):
        assert answer.status == 503
        assert answer.headers["x-should-retry"] == "false"
