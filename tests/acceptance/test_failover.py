"""Several upstreams for one model, from outside: they die, are slow, refuse and cut, and no promise is crossed.

One server with three upstreams: `logs` keeps logs and is in us, `near` keeps nothing and is in us, `far` keeps nothing
and is in eu. Each test has models of its own, so that what one upstream went through in a test is nobody else's.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.support.outside import Answer, Organization, another, call, comes_true, keepless
from tests.support.serve import Served, serve
from tests.support.upstream import Behaviour, MockUpstream

PROMISES = {
    "logs": {"retention": "logs_30d", "region": "us"},
    "near": {"retention": "zero", "region": "us"},
    "far": {"retention": "zero", "region": "eu"},
}
MENDED = [Behaviour.ERROR_503, Behaviour.ERROR_429, Behaviour.CUT_HEAD, Behaviour.RESET]
TOLD = {  # not asked again elsewhere
    Behaviour.ERROR_500: "upstream_error",
    Behaviour.ERROR_401: "upstream_authentication",
    Behaviour.NEVER: "upstream_timeout",
    Behaviour.GARBAGE: "upstream_malformed",
    Behaviour.CUT_JSON: "upstream_cut",
}
WAITED_FOR = {"patient", f"told-{Behaviour.NEVER}"}  # models whose upstream does not answer


@dataclass
class Stand:
    """The server, its upstreams by name, and its first customer."""

    served: Served
    folder: Path
    upstreams: dict[str, MockUpstream]

    @property
    def url(self) -> str:
        return self.served.url

    def customer(self, region: str | None = None) -> Organization:
        if region is None:
            return another(self.url, self.served.told["operator_key"])
        made = call(
            self.url,
            "POST",
            "/v1/organizations",
            self.served.told["operator_key"],
            {"name": "Pinned", "region": region},
        )
        assert made.status == 200, made.body
        return Organization.of(self.url, {"organization_id": made.json["id"], **made.json})

    def asked(self, model: str) -> dict[str, int]:
        """How many requests for a model each upstream has received."""
        return {
            name: sum(got.json.get("model") == model for got in mock.received) for name, mock in self.upstreams.items()
        }

    def explain(self, customer: Organization, answer: Answer) -> Any:
        path = f"/explain/{answer.headers['x-request-id']}"
        comes_true(lambda: customer.admin("GET", path).status == 200)
        return customer.admin("GET", path).json


def model(id: str, urls: dict[str, str], *names: str, weights: tuple[int, ...] = (), **more: Any) -> dict[str, Any]:
    given = weights or (1,) * len(names)
    upstreams = [
        {"base_url": urls[name], "weight": weight, **PROMISES[name]} for name, weight in zip(names, given, strict=True)
    ]
    seconds = 1.0 if id in WAITED_FOR else 30.0  # of a busy machine no upstream is to blame
    patience = {"first_byte_timeout": seconds, "idle_timeout": seconds, "connect_timeout": 2.0}
    return {"id": id, "engine": "openai", **patience, **more, "upstreams": upstreams}


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("failover")
    mocks = {name: MockUpstream() for name in (*PROMISES, "mortal")}
    urls = {name: mock.start() for name, mock in mocks.items()}
    lively = model("checked", urls, "near", "far", breaker_failures=1000)
    for upstream in lively["upstreams"]:
        upstream |= {"health_path": "/health", "health_seconds": 0.1}
    named = model("named", urls, "near", "far")
    named["upstreams"][1]["upstream_model"] = "called-otherwise"
    mortal = model("mortal", urls, "near", "far", breaker_seconds=0.2)
    mortal["upstreams"][0] |= {"base_url": urls["mortal"], "retention": "zero"}
    mended = {f"mended-{behaviour}-{streamed}": behaviour for behaviour in MENDED for streamed in (False, True)}
    models = [
        model("shares", urls, "near", "far", weights=(3, 1)),
        *(model(id, urls, "logs", "near", breaker_failures=1000) for id in mended),
        *(model(f"told-{behaviour}", urls, "near", "far", breaker_failures=1000) for behaviour in TOLD),
        model("cut", urls, "near", "far"),
        model("patient", urls, "near", "far", retry_timeouts=True),
        model("promises", urls, "logs", "near", "far", breaker_failures=1000),
        model("only-logs", urls, "logs", "logs"),
        model("toggled", urls, "logs", "near", breaker_failures=1000),
        lively, named, mortal,
    ]  # fmt: skip
    for id, behaviour in mended.items():
        mocks["logs"].set(id, behaviour)
    for behaviour in TOLD:
        for name in ("near", "far"):
            mocks[name].set(f"told-{behaviour}", behaviour)
    try:
        with serve(folder, models, "--workers", "1") as served:
            yield Stand(served, folder, mocks)
    finally:
        for mock in mocks.values():
            mock.stop()


def test_requests_are_shared_by_weight(stand: Stand) -> None:
    customer = stand.customer()
    assert {customer.chat("shares").status for _ in range(12)} == {200}
    assert stand.asked("shares") == {"logs": 0, "near": 9, "far": 3, "mortal": 0}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("behaviour", MENDED)
def test_a_try_that_another_mends_is_no_incident(stand: Stand, behaviour: Behaviour, streamed: bool) -> None:
    customer, name = stand.customer(), f"mended-{behaviour}-{streamed}"
    answers = [customer.chat(name, stream=streamed) for _ in range(2)]
    asked = stand.asked(name)
    assert [answer.status for answer in answers] == [200, 200]
    assert all(b"Hello" in answer.body for answer in answers)
    assert asked["logs"] >= 1 and asked["near"] == 2
    # Who answered keeps nothing; who saw the request before and may keep it is said as well.
    said = {answer.kept for answer in answers}
    begins = "on-error" if streamed else "none"
    assert said <= {begins, f"{begins}; tried=logs_30d"} and f"{begins}; tried=logs_30d" in said
    assert customer.retained() == {}
    comes_true(lambda: customer.counted() == 2)
    told = stand.explain(customer, answers[0])
    assert (told["status"], told["kept"], told["upstream_retention"]) == (200, False, "zero")


@pytest.mark.parametrize("behaviour", TOLD)
def test_other_failures_are_told_and_nobody_else_is_asked(stand: Stand, behaviour: Behaviour) -> None:
    customer, name = stand.customer(), f"told-{behaviour}"
    answer = customer.chat(name)
    assert (answer.status, answer.json["error"]["code"]) == (
        504 if behaviour is Behaviour.NEVER else 502,
        TOLD[behaviour],
    )
    assert sum(stand.asked(name).values()) == 1


def test_a_stream_that_has_begun_is_never_begun_again(stand: Stand) -> None:
    customer = stand.customer()
    for name in ("near", "far"):
        stand.upstreams[name].set("cut", Behaviour.CUT_STREAM)
    answer = customer.chat("cut", stream=True)
    assert (answer.status, answer.body.count(b'"role"')) == (200, 1)
    assert b"upstream_cut" in answer.body
    assert sum(stand.asked("cut").values()) == 1
    assert len(customer.retained()) == 1, "this one is an incident"


def test_a_slow_one_is_left_for_another_where_that_is_configured(stand: Stand) -> None:
    stand.upstreams["near"].set("patient", Behaviour.NEVER)
    customer = stand.customer()
    assert [customer.chat("patient").status for _ in range(2)] == [200, 200]
    assert customer.retained() == {}


def test_an_upstream_that_dies_and_comes_back_with_the_official_client(stand: Stand) -> None:
    customer = stand.customer()
    client = openai.OpenAI(base_url=f"{stand.url}/v1", api_key=customer.api_key, max_retries=0)
    ask: Any = {"model": "mortal", "messages": [{"role": "user", "content": "x"}]}
    assert client.chat.completions.create(**ask).choices[0].message.content
    stand.upstreams["mortal"].stop()
    for _ in range(12):
        assert client.chat.completions.create(**ask).choices[0].message.content
        assert "".join(c.choices[0].delta.content or "" for c in client.chat.completions.create(**ask, stream=True))
    ready = call(stand.url, "GET", "/readyz", "")
    checks = {check["check"]: check for check in ready.json["checks"]}
    assert ready.status == 200 and checks["model mortal"]["ok"] is True
    assert (checks["model mortal upstream 0"]["ok"], checks["model mortal upstream 1"]["ok"]) == (False, True)
    metrics = call(stand.url, "GET", "/metrics", "").body.decode()
    assert 'keepless_upstream_circuit_open{model="mortal",upstream="0"} 1' in metrics
    assert 'keepless_upstream_up{model="mortal",upstream="1"} 1' in metrics


def test_health_checks_take_an_upstream_out_and_bring_it_back(stand: Stand) -> None:
    customer, near = stand.customer(), stand.upstreams["near"]

    def health() -> dict[str, bool]:
        found = call(stand.url, "GET", "/readyz", "").json["checks"]
        return {check["check"]: check["ok"] for check in found if check["check"].startswith("model checked up")}

    near.health = 500
    comes_true(lambda: health() == {"model checked upstream 0": False, "model checked upstream 1": True})
    before = stand.asked("checked")
    assert {customer.chat("checked").status for _ in range(6)} == {200}
    assert stand.asked("checked")["near"] == before["near"]
    stand.upstreams["far"].health = 500
    comes_true(lambda: not any(health().values()))
    refused = customer.chat("checked")
    assert (refused.status, refused.json["error"]["code"]) == (503, "engine_unavailable")
    assert "upstream 0" in refused.json["error"]["message"]
    near.health = stand.upstreams["far"].health = 200
    comes_true(lambda: all(health().values()))
    assert customer.chat("checked").status == 200
    (asked, *_) = [got for got in near.received if got.path == "/health"]
    assert asked.body == b"" and asked.headers["user-agent"] == "keepless"


def test_each_is_asked_for_the_model_by_its_own_name(stand: Stand) -> None:
    customer = stand.customer()
    assert {customer.chat("named", "same text", stream=True).status for _ in range(4)} == {200}
    near, far = stand.asked("named"), stand.asked("called-otherwise")
    assert (near["near"], near["far"], far["near"], far["far"]) == (2, 0, 0, 2)
    for name, called in (("near", "named"), ("far", "called-otherwise")):
        (got, *_) = [got for got in stand.upstreams[name].received if got.json.get("model") == called]
        assert got.json["messages"][0]["content"] == "same text"
        assert got.json["stream_options"] == {"include_usage": True}
    body = {"model": "named", "input": "another text"}
    for _ in range(2):
        answered = call(stand.url, "POST", "/v1/responses", customer.api_key, body)
        assert (answered.status, answered.json["model"]) == (200, "named")
    assert (stand.asked("named")["near"], stand.asked("called-otherwise")["far"]) == (3, 3)


# -- promises ----------------------------------------------------------------------------------------------------------


def only(stand: Stand, customer: Organization, permitted: set[str]) -> None:
    """Whatever fails, no other upstream ever sees a request of this customer."""
    for failing in (*PROMISES, None):
        for name in PROMISES:
            stand.upstreams[name].set("promises", Behaviour.ERROR_503 if failing == name else Behaviour.OK)
        before = stand.asked("promises")
        answers = [customer.chat("promises") for _ in range(6)]
        after = stand.asked("promises")
        seen = {name for name in PROMISES if after[name] > before[name]}
        assert seen <= permitted, f"{failing} fails"
        well = permitted - {failing}
        assert {answer.status for answer in answers} == ({200} if well else {503})
        for answer in answers if not well else ():
            message = answer.json["error"]["message"]
            assert answer.json["error"]["code"] == "upstream_error" and "not permitted by Data Controls" in message


def test_zero_retention_goes_only_to_those_that_promise_it(stand: Stand) -> None:
    customer = stand.customer()
    shown = call(stand.url, "GET", "/v1/models/promises", customer.api_key).json["data_retention"]
    assert shown["allowed_modes"] == ["default", "zero_data_retention"]
    assert (shown["regions"], shown["upstream"], shown["region"]) == (["eu", "us"], None, None)
    customer.admin("POST", "/data_controls", {"zero_data_retention": True, "purge": True})
    only(stand, customer, {"near", "far"})
    shown = call(stand.url, "GET", "/v1/models/promises", customer.api_key).json["data_retention"]
    assert [upstream["permitted"] for upstream in shown["upstreams"]] == [False, True, True]
    refused = customer.chat("only-logs")
    assert (refused.status, refused.json["error"]["code"]) == (403, "upstream_retention_not_allowed")
    assert sum(stand.asked("only-logs").values()) == 0


def test_a_pinned_organization_never_leaves_its_region(stand: Stand) -> None:
    only(stand, stand.customer("us"), {"logs", "near"})
    pinned = stand.customer("eu")
    only(stand, pinned, {"far"})
    refused = pinned.chat("only-logs")
    assert (refused.status, refused.json["error"]["code"]) == (403, "upstream_region_not_allowed")


def test_a_toggle_holds_while_requests_move_from_one_upstream_to_another(stand: Stand) -> None:
    """Both upstreams fail by turns, so that requests are on their way from one to the other all the time."""
    customer, logs, near = stand.customer(), stand.upstreams["logs"], stand.upstreams["near"]
    stop, lock = threading.Event(), threading.Lock()
    spans: dict[str, tuple[float, float]] = {}

    def ask(worker: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            text, began = f"toggle-{worker}-{number}", time.monotonic()
            customer.chat("toggled", text)
            with lock:
                spans[text] = (began, time.monotonic())

    def flap() -> None:
        while not stop.is_set():
            for one, other in ((logs, near), (near, logs)):
                one.set("toggled", Behaviour.ERROR_503)
                other.set("toggled", Behaviour.OK)
                stop.wait(0.02)
            near.set("toggled", Behaviour.RESET)
            stop.wait(0.02)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)] + [threading.Thread(target=flap)]
    for thread in threads:
        thread.start()
    closed = []
    for _ in range(5):
        customer.admin("POST", "/data_controls", {"zero_data_retention": True, "purge": True})
        answered = time.monotonic()
        time.sleep(0.4)
        closed.append((answered, time.monotonic()))
        customer.admin("POST", "/data_controls", {"zero_data_retention": False})
        time.sleep(0.3)
    stop.set()
    for thread in threads:
        thread.join()
    seen = {got.json["messages"][0]["content"] for got in logs.received if got.json.get("model") == "toggled"}
    inside = {text for text, (began, ended) in spans.items() if any(a < began and ended < b for a, b in closed)}
    assert inside and seen, "it was a test"
    assert seen.isdisjoint(inside)


def test_doctor_says_what_it_thinks_of_them(stand: Stand) -> None:
    code, told = keepless(
        "doctor", "--data-dir", str(stand.folder / "data"), "--config", str(stand.folder / "keepless.toml")
    )
    found = {check["check"]: check for check in told["checks"]}
    assert code == 0
    assert found["model promises"]["grade"] == "ok"
    assert found["model only-logs"]["grade"] == "warning" and "zero retention" in found["model only-logs"]["detail"]
    assert found["model toggled"]["grade"] == "warning" and "only one" in found["model toggled"]["detail"]
