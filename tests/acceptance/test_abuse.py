"""Suspected abuse from outside: a suspicion keeps nothing, a confirmed case what its keys ask, and ZDR nothing."""

from collections.abc import Iterator

import pytest

from tests.support.outside import Organization, another, comes_true, keepless
from tests.support.serve import Served, serve, upstream_models
from tests.support.upstream import MockUpstream

MARKER = "abuse-91be07-marker"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("abuse")
    with MockUpstream() as upstream, serve(folder, upstream_models(upstream.base_url)) as server:
        yield server


def operator(served: Served, *arguments: str) -> dict[str, object]:
    code, answer = keepless(*arguments, KEEPLESS_BASE_URL=served.url, KEEPLESS_ADMIN_KEY=served.told["operator_key"])
    assert code == 0, answer
    return answer


def rotate(customer: Organization) -> list[str]:
    """Around the limit of a project by way of the next one; the keys."""
    keys = []
    for number in range(5):
        project = customer.admin("POST", "/projects", {"name": f"project {number}"}).json["id"]
        assert customer.admin("POST", f"/projects/{project}/limits", {"requests_per_minute": 1}).status == 200
        keys.append(customer.admin("POST", f"/projects/{project}/api_keys", {"name": "key"}).json["value"])
        assert [customer.chat("ok", MARKER, key=keys[-1]).status for _ in range(2)] == [200, 429]
        assert customer.admin("POST", f"/projects/{project}/limits", {}).status == 200
    return keys


def cases(customer: Organization) -> list[dict[str, object]]:
    return customer.admin("GET", "/abuse_cases").json["data"]


def test_a_confirmed_case_keeps_what_its_keys_ask_and_nothing_else(served: Served) -> None:
    customer, other = another(served.url, served.told["operator_key"]), another(served.url, served.told["operator_key"])
    keys = rotate(customer)
    comes_true(lambda: cases(customer))
    (case,) = cases(customer)
    assert (case["state"], case["signal"]) == ("suspected", "key_rotation")
    assert customer.retained() == {}, "a suspicion is metadata only"
    assert customer.chat("ok", MARKER, key=keys[-1]).kept == "none"
    assert cases(other) == []

    confirmed = operator(served, "cases", "confirm", str(case["id"]), "--organization-id", customer.id)

    assert confirmed["state"] == "confirmed"
    comes_true(lambda: customer.chat("ok", MARKER, key=keys[-1]).kept.startswith("class=abuse_log; object=obj_"))
    stream = customer.chat("ok", MARKER, key=keys[-1], stream=True)
    assert stream.kept.startswith("pending; class=abuse_log") and b"object=obj_" in stream.body
    assert customer.chat("ok", MARKER).kept == "none", "a key that the case does not name"
    assert other.chat("ok", MARKER).kept == "none"
    kept = customer.retained()
    assert {item["class"] for item in kept.values()} == {"abuse_log"} and len(kept) == 2

    code, changed = customer.keepless("controls", "set", "--zdr", "on", "--wait")
    assert (code, changed["purge"]["destroyed"]) == (0, 2)
    assert customer.retained() == {}
    assert customer.chat("ok", MARKER, key=keys[-1]).kept == "none"

    operator(served, "cases", "close", str(case["id"]), "--organization-id", customer.id)
    customer.keepless("controls", "set", "--zdr", "off")
    comes_true(lambda: customer.chat("ok", MARKER, key=keys[-1]).kept == "none")
    assert customer.retained() == {}
    assert MARKER not in "".join(served.log)
