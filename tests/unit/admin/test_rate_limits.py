"""OpenAI's rate limits of a project: one a model, tighter only, and in force when the answer is there."""

from hashlib import sha256

from keepless.accounts.principal import Limits
from tests.support.platform import Platform

NONE = 2_147_483_647


def base(here: Platform) -> str:
    return f"/organization/projects/{here.project_id}/rate_limits"


def in_force(here: Platform, model: str) -> Limits | None:
    found = here.services.lease.principal(sha256(here.api_key.encode()).digest())
    assert found is not None
    return (found.project.model_limits or {}).get(model)


def test_one_for_each_model_of_the_deployment(here: Platform) -> None:
    page = here.json("GET", base(here))
    assert [(one["id"], one["model"]) for one in page["data"]] == [
        ("rl-smollm2", "smollm2"),
        ("rl-lab~large:8b", "lab/large:8b"),
    ]
    assert page["data"][0] == {
        "object": "project.rate_limit",
        "id": "rl-smollm2",
        "model": "smollm2",
        "max_requests_per_1_minute": NONE,
        "max_requests_per_1_day": NONE,
        "max_tokens_per_1_minute": NONE,
    }
    first = here.json("GET", base(here) + "?limit=1")
    assert (first["has_more"], first["last_id"]) == (True, "rl-smollm2")
    second = here.json("GET", base(here) + "?limit=1&after=rl-smollm2")
    assert [one["id"] for one in second["data"]] == ["rl-lab~large:8b"]
    back = here.json("GET", base(here) + "?limit=1&before=rl-lab~large:8b")
    assert ([one["id"] for one in back["data"]], back["has_more"]) == (["rl-smollm2"], False)
    assert here.error("GET", base(here) + "?before=rl-MARKER") == (404, "not_found")


def test_set_changed_one_by_one_and_taken_away(anywhere: Platform) -> None:
    path = base(anywhere) + "/rl-lab~large:8b"
    changed = anywhere.json("POST", path, {"max_requests_per_1_minute": 3})
    assert (changed["max_requests_per_1_minute"], changed["max_tokens_per_1_minute"]) == (3, NONE)
    assert in_force(anywhere, "lab/large:8b") == Limits(requests_per_minute=3)
    anywhere.json("POST", path, {"max_tokens_per_1_minute": 900, "max_requests_per_1_day": 0})
    assert in_force(anywhere, "lab/large:8b") == Limits(3, 0, 900)
    assert in_force(anywhere, "smollm2") is None
    (event, *_) = anywhere.json("GET", "/organization/audit_logs?event_types=rate_limit.updated")["data"]
    assert event["rate_limit.updated"]["changes_requested"]["model"] == "lab/large:8b"
    assert event["rate_limit.updated"]["changes_requested"]["max_requests_per_1_minute"] == 3
    three = {name: NONE for name in changed if name.startswith("max_")}
    anywhere.json("POST", path, three)
    assert in_force(anywhere, "lab/large:8b") is None


def test_a_model_may_not_be_asked_more_than_all_models_together(here: Platform) -> None:
    own = f"/organization/projects/{here.project_id}/limits"
    here.json("POST", own, {"requests_per_minute": 10})
    shown = here.json("GET", base(here))["data"][0]
    assert shown["max_requests_per_1_minute"] == 10
    path = base(here) + "/rl-smollm2"
    assert here.error("POST", path, {"max_requests_per_1_minute": 11}) == (400, "invalid_value")
    assert here.json("POST", path, {"max_requests_per_1_minute": 9})["max_requests_per_1_minute"] == 9
    here.json(
        "POST", "/organization/limits?organization_id=" + here.organization_id, {"tokens_per_minute": 5}, key="operator"
    )
    assert here.error("POST", path, {"max_tokens_per_1_minute": 6}) == (400, "invalid_value")
    assert here.json("GET", base(here))["data"][0]["max_tokens_per_1_minute"] == 5


def test_what_is_no_model_or_no_project_is_404(here: Platform) -> None:
    assert here.error("POST", base(here) + "/rl-MARKER", {"max_requests_per_1_minute": 1}) == (404, "not_found")
    stranger = here.other()["admin_key"]
    assert here.error("GET", base(here), key=stranger) == (404, "not_found")
    foreign = here.error("POST", base(here) + "/rl-smollm2", {"max_requests_per_1_minute": 1}, key=stranger)
    assert foreign == (404, "not_found")
    assert in_force(here, "smollm2") is None
    gone = "/organization/projects/proj_x/rate_limits"
    assert here.error("GET", gone) == (404, "not_found")
    for wrong in ({"max_images_per_1_minute": 1}, {"batch_1_day_max_input_tokens": 1}):
        assert here.error("POST", base(here) + "/rl-smollm2", wrong) == (400, "unknown_parameter")


def test_limits_go_with_their_organization(anywhere: Platform) -> None:
    anywhere.json("POST", base(anywhere) + "/rl-smollm2", {"max_requests_per_1_minute": 3})
    anywhere.json("DELETE", f"/organizations/{anywhere.organization_id}", key="operator")
    from keepless.accounts.tables import model_limit

    with anywhere.services.db.read() as tx:
        assert tx.execute(model_limit.select()).all() == []
