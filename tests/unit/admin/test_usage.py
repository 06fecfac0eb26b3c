"""Usage and explanations over HTTP."""

from typing import Any

from keepless.config import UpstreamRetention
from keepless.errors import Code
from keepless.ids import Id, Prefix, mint
from keepless.policy.controls import Source
from keepless.policy.decision import DiscardReason
from keepless.usage.ledger import Ledger
from keepless.usage.record import Endpoint, Outcome, Phase, Record, Route, Sketch
from tests.support.platform import Platform

COMPLETIONS = "/organization/usage/completions"


def record(here: Platform, **values: Any) -> Id:
    request_id = mint(Prefix.REQUEST)
    defaults: dict[str, Any] = {
        "request_id": request_id,
        "at_ms": here.rig.clock.now_ms(),
        "organization_id": here.organization_id,
        "project_id": here.project_id,
        "endpoint": Endpoint.CHAT,
        "model": Id("smollm2"),
        "status": 200,
        "prompt_tokens": 5,
        "completion_tokens": 7,
        "epoch": 1,
        "outcome": Outcome.ON_ERROR,
        "route": Route.EMBEDDED,
    }
    ledger = Ledger(here.rig.database)
    ledger.start()
    ledger.add(Record(**{**defaults, **values}))
    ledger.close()
    return request_id


def test_completions_in_openais_shape(anywhere: Platform) -> None:
    record(anywhere)
    record(anywhere, organization_id=mint(Prefix.ORGANIZATION))
    start = anywhere.rig.clock.now_ms() // 1000 - 3600
    query = f"?start_time={start}&bucket_width=1d&group_by[]=project_id&group_by[]=model&limit=3"
    page = anywhere.json("GET", COMPLETIONS + query)
    assert page["object"] == "page"
    results = [result for bucket in page["data"] for result in bucket["results"]]
    (only,) = results
    assert (only["input_tokens"], only["output_tokens"], only["num_model_requests"]) == (5, 7, 1)
    assert (only["project_id"], only["model"]) == (anywhere.project_id, "smollm2")


def test_bad_questions(here: Platform) -> None:
    assert here.error("GET", COMPLETIONS) == (400, "missing_required_parameter")
    wrong = ("limit=0", "bucket_width=1y", "group_by=MARKER", "page=MARKER", "start_time=x", "limit=9999")
    for query in (*wrong, "models=%00"):
        joined = query if query.startswith("start") else f"start_time=1&{query}"
        assert here.error("GET", f"{COMPLETIONS}?{joined}") == (400, "invalid_value")
    assert here.error("GET", f"{COMPLETIONS}?start_time=1&sizes=256x256") == (400, "unknown_parameter")
    assert here.error("GET", "/organization/costs?start_time=1&bucket_width=1h") == (400, "invalid_value")


def test_filters_of_what_is_not_told_apart_fit_nothing(here: Platform) -> None:
    record(here)
    start = here.rig.clock.now_ms() // 1000 - 3600
    grouped = here.json("GET", f"{COMPLETIONS}?start_time={start}&group_by[]=user_id&group_by[]=service_tier")
    (only,) = [result for bucket in grouped["data"] for result in bucket["results"]]
    assert (only["user_id"], only["service_tier"], only["num_model_requests"]) == (None, None, 1)
    narrowed = here.json("GET", f"{COMPLETIONS}?start_time={start}&user_ids[]=user-1")
    assert [bucket["results"] for bucket in narrowed["data"]] == [[]] * len(narrowed["data"])


def test_what_is_not_served_was_not_used(here: Platform) -> None:
    record(here)
    start = here.rig.clock.now_ms() // 1000 - 3600
    for name in ("images", "moderations", "vector_stores", "code_interpreter_sessions", "decisions"):
        page = here.json("GET", f"/organization/usage/{name}?start_time={start}&bucket_width=1h")
        assert page["object"] == "page"
        assert page["data"], name
        assert not [result for bucket in page["data"] for result in bucket["results"]]


def test_costs_without_a_price_are_zero(here: Platform) -> None:
    record(here)
    start = here.rig.clock.now_ms() // 1000 - 3600
    page = here.json("GET", f"/organization/costs?start_time={start}&group_by[]=line_item&group_by[]=project_id")
    found = [(r["line_item"], r["amount"], r["project_id"]) for bucket in page["data"] for r in bucket["results"]]
    nothing = {"value": 0.0, "currency": "usd"}
    assert found == [
        ("smollm2, input", nothing, here.project_id),
        ("smollm2, output", nothing, here.project_id),
    ]


def test_a_captured_request_is_explained(anywhere: Platform) -> None:
    kept = anywhere.put()
    request_id = record(
        anywhere,
        status=502,
        code=Code.UPSTREAM_CUT,
        outcome=Outcome.CAPTURED,
        object_id=kept.id,
        upstream=UpstreamRetention.ZERO,
        sketch=Sketch(phase=Phase.ANSWER, messages=2),
    )
    told = anywhere.json("GET", f"/organization/explain/{request_id}")
    assert (told["kept"], told["trigger"], told["reason"]) == (True, "reliability_error", "engine_crash")
    assert (told["object_id"], told["epoch"], told["route"]) == (kept.id, 1, "embedded")
    assert told["upstream_retention"] == "zero"
    assert told["sketch"]["messages"] == 2
    anywhere.json("DELETE", f"/organization/retained_objects/{kept.id}")
    assert anywhere.json("GET", f"/organization/explain/{request_id}")["reason"] == "engine_crash"


def test_a_refused_capture_says_who_refused(anywhere: Platform) -> None:
    request_id = record(
        anywhere,
        status=502,
        outcome=Outcome.REFUSED,
        discard=DiscardReason.ZERO_DATA_RETENTION,
        source=Source.ORGANIZATION,
    )
    told = anywhere.json("GET", f"/organization/explain/{request_id}")
    assert (told["kept"], told["source"], told["discard"]) == (False, "organization", "zero_data_retention")
    assert "Zero Data Retention" in told["why"]


def test_nobody_elses_request_is_explained(anywhere: Platform) -> None:
    request_id = record(anywhere, organization_id=mint(Prefix.ORGANIZATION))
    for text in (request_id, mint(Prefix.REQUEST), "MARKER"):
        assert anywhere.error("GET", f"/organization/explain/{text}") == (404, "not_found")
