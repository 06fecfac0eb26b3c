"""POST responses and responses/input_tokens: OpenAI's newer conversation, without state.

Holds: `ResponseFamily` and `InputTokenFamily` (what the endpoints have of their own, see handler). Leaves out: the
steps of a request (handler), parameters (response_params), the client's side (response_speakers), what is asked about
responses afterwards (response_routes), what is permitted and kept (pipeline).

An upstream that speaks /responses itself is asked for it, always with `store: false`; any other engine is asked for
chat completions, and its answer is translated.
"""

from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec

from keepless.accounts.principal import Principal
from keepless.config import Endpoint
from keepless.content import Content
from keepless.gateway.catalogue import capabilities_of
from keepless.gateway.chat import ENGINE_PATH
from keepless.gateway.handler import Arrival, JsonFamily, Served
from keepless.gateway.response_bridge import to_chat
from keepless.gateway.response_params import ResponseRequest, ResponseRules, bridged_capabilities
from keepless.gateway.response_speakers import BridgeSpeaker, CountSpeaker, NativeSpeaker
from keepless.gateway.shape import RESPONSES
from keepless.http.limits import Grant, RateLimits
from keepless.inference.asking import Ask, Speaker
from keepless.inference.router import Route
from keepless.policy.controls import RequestControls
from keepless.usage.record import Sketch

__all__ = ["COUNT", "PATH", "InputTokenFamily", "ResponseFamily"]

PATH: Final = "/responses"
COUNT: Final = "/input_tokens"
_TIMED: Final = b"inference-metrics"  # Groq's: timings are among the answer's metadata
_COUNTED: Final = frozenset(
    {"model", "input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "text", "reasoning"}
    | {"truncation", "previous_response_id", "conversation"}
)

_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class _Model(Served):
    rules: ResponseRules
    native: bool


class _Family(JsonFamily[_Model, ResponseRequest]):
    """What both endpoints have in common."""

    def serve(self, route: Route) -> _Model:
        """See `Family`."""
        model = route.model
        capabilities = capabilities_of(model)
        native = model.native_responses
        counts = self.endpoint is Endpoint.INPUT_TOKENS
        return _Model(
            route=route,
            id=route.model_id,
            endpoint=self.endpoint,
            path=(PATH if native else ENGINE_PATH) + (COUNT if counts else ""),
            rules=ResponseRules(
                model,
                capabilities if native else bridged_capabilities(capabilities),
                only=_COUNTED.__contains__ if counts else None,
            ),
            native=native,
        )

    def check(self, arrival: Arrival, model: _Model) -> ResponseRequest:
        """See `Family`."""
        checked = model.rules.check(arrival.members)
        checked.timed = _TIMED in arrival.request.fields.get(b"groq-beta", b"")
        if not model.native:
            checked.asked = to_chat(checked)
        elif self.endpoint is Endpoint.RESPONSES:
            checked.asked = {**checked.body, "store": False}
        else:
            checked.asked = checked.body
        return checked

    def estimate(self, arrival: Arrival, checked: ResponseRequest) -> int:
        """See `Family`."""
        return RESPONSES.estimate(checked.body, checked.max_tokens)

    def ask(
        self, arrival: Arrival, principal: Principal, model: _Model, checked: ResponseRequest, controls: RequestControls
    ) -> Ask:
        """See `Family`."""
        received = Content(arrival.request.body)
        name = model.route.name
        sent = Content(_encode(checked.asked)) if name is None else _named(checked, name)
        renamed = partial(_named, checked) if model.route.several_names else None
        return arrival.ask(principal, model, sent, received, controls, stream=checked.stream, renamed=renamed)

    def sketch(self, arrival: Arrival) -> Sketch:
        """See `Family`."""
        return RESPONSES.sketch(arrival.body, arrival.phase, body_bytes=len(arrival.request.body))


def _named(checked: ResponseRequest, name: str) -> Content:
    """The request for an upstream that calls the model by a name of its own."""
    return Content(_encode({**checked.asked, "model": name}))


class ResponseFamily(_Family):
    """See `Family`."""

    def __init__(self, json_depth: int) -> None:
        super().__init__(Endpoint.RESPONSES, json_depth)

    def speaker(
        self, arrival: Arrival, ask: Ask, checked: ResponseRequest, grant: Grant | None, rates: RateLimits
    ) -> Speaker:
        """See `Family`."""
        native = ask.path == PATH
        return (NativeSpeaker if native else BridgeSpeaker)(arrival.outlet, ask, checked, grant, rates)


class InputTokenFamily(_Family):
    """See `Family`. Counts for the client and costs no tokens; only engines that count exactly are asked."""

    def __init__(self, json_depth: int) -> None:
        super().__init__(Endpoint.INPUT_TOKENS, json_depth)

    def speaker(
        self, arrival: Arrival, ask: Ask, checked: ResponseRequest, grant: Grant | None, rates: RateLimits
    ) -> Speaker:
        """See `Family`."""
        return CountSpeaker(arrival.outlet, ask, checked, grant, rates)
