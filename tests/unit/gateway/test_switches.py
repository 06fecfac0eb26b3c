"""Privacy switches of a request: tighten or be refused."""

from typing import Any

import pytest

from keepless.errors import Code, Problem
from keepless.gateway import switches
from keepless.gateway.switches import BODY, HEADERS, Effect, from_body, from_headers
from keepless.policy.controls import NO_REQUEST, RequestControls

KEEP = RequestControls(keep_nothing=True)
ZERO = RequestControls(keep_nothing=True, zero_upstream=True)

# Written out by hand, so that a change of the table shows here.
HEADER_CASES = [
    (b"x-keepless-retention", b"zero", ZERO),
    (b"x-keepless-retention", b" ZERO ", ZERO),
    (b"cf-aig-zdr", b"true", ZERO),
    (b"cf-aig-collect-log", b"false", KEEP),
    (b"cf-aig-collect-log-payload", b"false", KEEP),
    (b"cf-aig-skip-cache", b"true", NO_REQUEST),
    (b"helicone-omit-request", b"true", KEEP),
    (b"helicone-omit-response", b"true", KEEP),
    (b"helicone-cache-enabled", b"false", NO_REQUEST),
    (b"litellm-enable-message-redaction", b"true", KEEP),
    (b"x-litellm-enable-message-redaction", b"True", KEEP),
    (b"litellm-disable-message-redaction", b"false", KEEP),
    (b"x-portkey-debug", b"false", KEEP),
    (b"user-agent", b"MARKER", NO_REQUEST),
    (b"cf-aig-metadata", b"MARKER", NO_REQUEST),
]
HEADER_REFUSALS = [
    (b"x-keepless-retention", b"none", Code.INVALID_VALUE),
    (b"x-keepless-retention", b"", Code.INVALID_VALUE),
    (b"x-keepless-retention", b"MARKER", Code.INVALID_VALUE),
    (b"x-keepless-MARKER", b"1", Code.UNKNOWN_PARAMETER),
    (b"helicone-omit-MARKER", b"true", Code.UNKNOWN_PARAMETER),
    (b"cf-aig-zdr", b"false", Code.LOOSENING_REFUSED),
    (b"cf-aig-zdr", b"1", Code.INVALID_VALUE),
    (b"cf-aig-collect-log-payload", b"true", Code.LOOSENING_REFUSED),
    (b"helicone-omit-request", b"false", Code.LOOSENING_REFUSED),
    (b"helicone-cache-enabled", b"true", Code.LOOSENING_REFUSED),
    (b"litellm-enable-message-redaction", b"false", Code.LOOSENING_REFUSED),
    (b"litellm-disable-message-redaction", b"true", Code.LOOSENING_REFUSED),
    (b"x-portkey-debug", b"true", Code.LOOSENING_REFUSED),
]
BODY_CASES: list[tuple[dict[str, Any], RequestControls]] = [
    ({"store": False}, KEEP),
    ({"store": None}, NO_REQUEST),
    ({"no-log": True}, KEEP),
    ({"prompt_cache_retention": "in_memory"}, NO_REQUEST),
    ({"provider": {"zdr": True}}, ZERO),
    ({"provider": {"data_collection": "deny"}}, ZERO),
    ({"provider": {}}, NO_REQUEST),
    ({"provider": None}, NO_REQUEST),
    ({"providerOptions": {"gateway": {"zeroDataRetention": True}}}, ZERO),
    ({"store": False, "provider": {"zdr": True, "data_collection": "deny"}}, ZERO),
    ({}, NO_REQUEST),
]
BODY_REFUSALS: list[tuple[dict[str, Any], Code, str]] = [
    ({"store": True}, Code.LOOSENING_REFUSED, "store"),
    ({"store": "false"}, Code.INVALID_VALUE, "store"),
    ({"store": 0}, Code.INVALID_VALUE, "store"),
    ({"store": 1}, Code.INVALID_VALUE, "store"),
    ({"store": ["MARKER"]}, Code.INVALID_VALUE, "store"),
    ({"no-log": False}, Code.LOOSENING_REFUSED, "no-log"),
    ({"prompt_cache_retention": "24h"}, Code.LOOSENING_REFUSED, "prompt_cache_retention"),
    ({"prompt_cache_retention": "MARKER"}, Code.INVALID_VALUE, "prompt_cache_retention"),
    ({"provider": {"zdr": False}}, Code.LOOSENING_REFUSED, "provider.zdr"),
    ({"provider": {"data_collection": "allow"}}, Code.LOOSENING_REFUSED, "provider.data_collection"),
    ({"provider": {"MARKER": True}}, Code.UNKNOWN_PARAMETER, "provider"),
    ({"provider": "MARKER"}, Code.INVALID_TYPE, "provider"),
    ({"providerOptions": {"gateway": "MARKER"}}, Code.INVALID_TYPE, "providerOptions.gateway"),
    ({"providerOptions": {"MARKER": {}}}, Code.UNKNOWN_PARAMETER, "providerOptions"),
    (
        {"providerOptions": {"gateway": {"zeroDataRetention": False}}},
        Code.LOOSENING_REFUSED,
        "providerOptions.gateway.zeroDataRetention",
    ),
]


@pytest.mark.parametrize(("name", "value", "controls"), HEADER_CASES)
def test_headers_tighten(name: bytes, value: bytes, controls: RequestControls) -> None:
    assert from_headers([(b"host", b"x"), (name, value)]) == controls


@pytest.mark.parametrize(("name", "value", "code"), HEADER_REFUSALS)
def test_headers_are_refused(name: bytes, value: bytes, code: Code) -> None:
    with pytest.raises(Problem) as caught:
        from_headers([(name, value)])
    assert (caught.value.status, caught.value.code) == (400, code)
    assert "MARKER" not in f"{caught.value.message}{caught.value.param}"


@pytest.mark.parametrize(("body", "controls"), BODY_CASES)
def test_members_tighten_and_are_taken_out(body: dict[str, Any], controls: RequestControls) -> None:
    sent = {"model": "m", **body}
    assert from_body(sent) == controls
    assert sent == {"model": "m"}


@pytest.mark.parametrize(("body", "code", "param"), BODY_REFUSALS)
def test_members_are_refused(body: dict[str, Any], code: Code, param: str) -> None:
    with pytest.raises(Problem) as caught:
        from_body(dict(body))
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, code, param)
    assert "MARKER" not in caught.value.message


def test_no_switch_loosens_and_each_can_tighten_or_is_neutral() -> None:
    for values in [*HEADERS.values(), *(member.values for member in BODY)]:
        assert any(effect is not Effect.LOOSEN for effect in values.values())
    assert Effect.LOOSEN not in switches._CONTROLS


def test_two_switches_add_up() -> None:
    assert from_headers([(b"helicone-omit-request", b"true"), (b"cf-aig-zdr", b"true")]) == ZERO
    assert from_headers([(b"cf-aig-zdr", b"true"), (b"cf-aig-skip-cache", b"true")]) == ZERO
