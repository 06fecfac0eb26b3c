"""Health, metrics, the log's public face."""

import json
from pathlib import Path

import pytest

from keepless.admin.health import Check, Metric, MetricKind
from keepless.config import Settings
from tests.support.asgi import Answer, call
from tests.support.platform import Platform, platform
from tests.support.sqlite import fresh


def get(here: Platform, path: str, **headers: str) -> Answer:
    return call(here.app, "GET", path, {name.replace("_", "-"): value for name, value in headers.items()})


def test_health_says_alive_without_a_key(here: Platform) -> None:
    answer = get(here, "/healthz")
    assert (answer.status, json.loads(answer.body)) == (200, {"status": "alive"})


def test_readiness_says_which_check_fails_and_why(here: Platform) -> None:
    here.checks.append(Check("ledger", ok=True, why="not shown"))
    answer = get(here, "/readyz")
    assert answer.status == 200
    body = json.loads(answer.body)
    assert body["status"] == "ready"
    assert [check["check"] for check in body["checks"]] == ["database", "policy", "location", "ledger"]
    assert {(check["ok"], check["why"]) for check in body["checks"]} == {(True, "")}
    assert body["location"]["says"] == "this machine, region undeclared"
    here.checks.append(Check("sweep", ok=False, why="paused"))
    answer = get(here, "/readyz")
    assert answer.status == 503
    shown = {"check": "sweep", "ok": False, "vital": True, "why": "paused"}
    assert json.loads(answer.body)["checks"][-1] == shown
    here.checks[-1] = Check("model m upstream 0", ok=False, why="it does not answer", vital=False)
    answer = get(here, "/readyz")
    assert (answer.status, json.loads(answer.body)["checks"][-1]["ok"]) == (200, False)


def test_readiness_without_lease_or_location(here: Platform) -> None:
    here.services.lease.stop()
    here.rig.clock.tick += 3 * 3600  # nobody has asked the location for three hours
    answer = get(here, "/readyz")
    failing = [check["check"] for check in json.loads(answer.body)["checks"] if not check["ok"]]
    assert (answer.status, failing) == (503, ["policy", "location"])


def test_metrics_in_prometheus_text(here: Platform) -> None:
    here.metrics += [
        Metric("keepless_requests_total", MetricKind.COUNTER, "Requests.", (({"status": "200"}, 3), ({}, 0.5))),
        Metric("keepless_policy_lease", MetricKind.GAUGE, "Lease.", (({}, 1),)),
    ]
    answer = get(here, "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert answer.body.decode() == (
        "# HELP keepless_requests_total Requests.\n"
        "# TYPE keepless_requests_total counter\n"
        'keepless_requests_total{status="200"} 3\n'
        "keepless_requests_total 0.5\n"
        "# HELP keepless_policy_lease Lease.\n"
        "# TYPE keepless_policy_lease gauge\n"
        "keepless_policy_lease 1\n"
    )


def test_large_counters_are_not_rounded(here: Platform) -> None:
    here.metrics.append(Metric("keepless_x_total", MetricKind.COUNTER, "X.", (({}, 123_456_789.0),)))
    assert b"keepless_x_total 123456789\n" in get(here, "/metrics").body


def test_metrics_through_a_proxy_need_the_operators_key(here: Platform) -> None:
    forwarded = {"x_forwarded_for": "203.0.113.5"}
    assert get(here, "/metrics", **forwarded).status == 401
    assert get(here, "/metrics", **forwarded, authorization=f"Bearer {here.owner_key}").status == 403
    assert get(here, "/metrics", **forwarded, authorization=f"Bearer {here.operator_key}").status == 200


def test_behind_a_proxy_this_machine_is_nobody_special(tmp_path: Path) -> None:
    db = fresh(tmp_path)
    with platform(db, tmp_path, Settings(data_dir=str(tmp_path), behind_proxy=True)) as here:
        assert get(here, "/metrics").status == 401
    db.close()


def test_the_log_is_public_and_tells_hashes_only(here: Platform) -> None:
    kept = here.put()
    checkpoint = get(here, "/log/checkpoint")
    assert checkpoint.status == 200
    size = int(checkpoint.body.split(b"\n")[1])
    assert size >= 5
    tile = get(here, f"/log/tile/0/000.p/{size}")
    assert (tile.status, len(tile.body)) == (200, 32 * size)
    assert "immutable" in tile.headers["cache-control"]
    for answer in (checkpoint, tile, get(here, "/log/key")):
        for secret in (kept.id, here.organization_id, here.project_id):
            assert secret.encode() not in answer.body


@pytest.mark.parametrize("path", ["0/001", "0/000.p/9999", "x", "0/../../etc/passwd", "8/000"])
def test_what_is_no_tile_is_404(here: Platform, path: str) -> None:
    answer = get(here, f"/log/tile/{path}")
    assert answer.status == 404
    assert json.loads(answer.body)["error"]["code"] == "not_found"


def test_unknown_routes_of_the_admin_api_say_so(here: Platform) -> None:
    for path, said in (
        ("/organization", "/openapi.json"),
        ("/organization/nothing", "/openapi.json"),
        ("/organization/certificates", "no client certificates"),  # OpenAI's, not served here: why
    ):
        answer = here.ask("POST", path, {})
        assert answer.status == 404
        error = json.loads(answer.body)["error"]
        assert error["code"] == "unknown_url"
        assert said in error["message"]
    answer = here.ask("PUT", "/organization/projects", {})
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (405, "method_not_allowed")
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}
