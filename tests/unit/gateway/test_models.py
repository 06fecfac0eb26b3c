"""GET models: the catalogue as a caller may use it."""

import json
import os
from collections.abc import Sequence
from typing import Any, cast

import pytest
from starlette.applications import Starlette

from keepless.accounts.lease import Lease
from keepless.gateway.models import routes
from keepless.http import problems
from keepless.inference.embedded.dialect import CAPABILITIES
from keepless.inference.embedded.pulse import Pulses, State
from keepless.inference.router import Route, Router
from keepless.policy.controls import Controls
from keepless.policy.data_class import Feature
from tests.support.asgi import Answer, call
from tests.support.way import KEY, MODELS, FakeBackend, FakeLease

BEARER = {"authorization": f"Bearer {KEY}"}


def get(
    path: str, lease: FakeLease | None = None, headers: dict[str, str] | None = None, routed: Sequence[Route] = ()
) -> Answer:
    router = Router(routed or [Route(model, FakeBackend()) for model in MODELS])
    pages = routes(cast("Lease", lease or FakeLease()), router, appeared={"embedded": 1_700_000_000_999})
    app = Starlette(routes=pages, exception_handlers=dict(problems.handlers()))
    return call(problems.Guard(app), "GET", path, BEARER if headers is None else headers)


@pytest.mark.parametrize("base", ["/v1", "/openai/v1"])
def test_the_list_and_each_model_say_the_same(base: str) -> None:
    found = json.loads(get(f"{base}/models").body)
    assert found["object"] == "list"
    assert [model["id"] for model in found["data"]] == [model.id for model in MODELS]
    for model in found["data"]:
        assert json.loads(get(f"{base}/models/{model['id']}").body) == model
        assert model["object"] == "model"
        assert model["active"] is True
        assert model["health"] == ("running" if model["id"] in ("embedded", "minilm", "flite") else "up")
        assert model["context_window"] == 8192


@pytest.mark.parametrize(("state", "active"), [(State.CRASHED, True), (State.RESTING, True), (State.MISSING, False)])
def test_how_an_engine_is(state: State, active: bool) -> None:
    pulses = Pulses(1)
    pulses[0].tell(state)
    embedded = next(model for model in MODELS if model.id == "embedded")
    found = json.loads(get("/v1/models/embedded", routed=[Route(embedded, FakeBackend(), pulse=pulses[0])]).body)
    os.close(pulses.fd)
    assert (found["health"], found["active"]) == (state.value, active)


def test_created_is_when_it_appeared() -> None:
    found = {model["id"]: model["created"] for model in json.loads(get("/v1/models").body)["data"]}
    assert found["embedded"] == 1_700_000_000
    assert {created for model, created in found.items() if model != "embedded"} == {0}


def test_capabilities() -> None:
    conversing = {"chat.completions", "responses", "responses.input_tokens"}
    assert set(json.loads(get("/v1/models/embedded").body)["capabilities"]) == CAPABILITIES | conversing
    assert json.loads(get("/v1/models/transcriber").body)["capabilities"] == ["audio.transcriptions"]
    assert set(json.loads(get("/v1/models/zero").body)["capabilities"]) > CAPABILITIES


ZDR, OFF = Controls(zero_data_retention=True), Controls(off=frozenset({Feature.INFERENCE_LOGGING}))


@pytest.mark.parametrize(
    ("model", "controls", "valid", "mode", "source", "permitted"),
    [
        ("zero", Controls(), True, "default", "schedule", True),
        ("logs", Controls(), True, "default", "schedule", True),
        ("zero", ZDR, True, "zero_data_retention", "organization", True),
        ("logs", ZDR, True, "zero_data_retention", "organization", False),
        ("logs", OFF, True, "zero_data_retention", "organization", False),
        ("embedded", ZDR, True, "zero_data_retention", "organization", True),
        ("logs", Controls(), False, "zero_data_retention", "policy_unreadable", False),
    ],
)
def test_data_retention(model: str, controls: Controls, valid: bool, mode: str, source: str, permitted: bool) -> None:
    lease = FakeLease()
    lease.set(controls)
    lease.valid = valid
    shown: dict[str, Any] = json.loads(get(f"/v1/models/{model}", lease).body)["data_retention"]
    assert (shown["mode"], shown["source"], shown["permitted"]) == (mode, source, permitted)
    both = ["default", "zero_data_retention"]
    assert shown["allowed_modes"] == (["default"] if model == "logs" else both)


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("/v1/models", {}, 401, "invalid_api_key"),
        ("/v1/models/zero", {"authorization": "Bearer MARKER"}, 401, "invalid_api_key"),
        ("/v1/models/MARKER", None, 404, "model_not_found"),
        ("/v1/models/MARKER/x", None, 404, "model_not_found"),
    ],
)
def test_refusals_do_not_echo(path: str, headers: dict[str, str] | None, status: int, code: str) -> None:
    answer = get(path, headers=headers)
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (status, code)
    assert b"MARKER" not in answer.body
