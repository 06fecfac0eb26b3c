"""POST embeddings: texts in, vectors out. Nothing of it is ever captured (DECISIONS 17).

Holds: `EmbeddingFamily` (what the endpoint has of its own, see handler) and `EmbeddingSpeaker`, the client's side of
one request. Leaves out: the steps of a request (handler), parameters (embedding_params), vectors (inference.embedded).
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import msgspec

from keepless.accounts.principal import Principal
from keepless.config import Endpoint
from keepless.content import Content
from keepless.gateway.catalogue import capabilities_of
from keepless.gateway.embedding_params import PARAMETERS, EmbeddingRequest, EmbeddingRules
from keepless.gateway.handler import Arrival, JsonFamily, Served
from keepless.gateway.input_shape import NO_FLAG, sketch_of
from keepless.gateway.media_shapes import Vectors
from keepless.gateway.speaker import PlainSpeaker
from keepless.gateway.wire import tokens_of
from keepless.http.limits import Grant, RateLimits
from keepless.inference.asking import NO_TOKENS, Ask, MalformedError
from keepless.inference.embedded.asks import EmbeddingHeader
from keepless.inference.embedded.frames import pack
from keepless.inference.router import Route
from keepless.policy.controls import NO_REQUEST, RequestControls
from keepless.usage.record import Flag, Phase, Sketch

__all__ = ["EmbeddingFamily", "EmbeddingSpeaker"]

_PATH: Final = "/embeddings"
_CHARACTERS_A_TOKEN: Final = 4
_TOKENS_A_TEXT: Final = 2

_encode: Final = msgspec.json.Encoder().encode


_answer: Final = msgspec.json.Decoder(Vectors).decode


@dataclass(frozen=True, slots=True)
class _Model(Served):
    rules: EmbeddingRules


class EmbeddingFamily(JsonFamily[_Model, EmbeddingRequest]):
    """See `Family`."""

    def __init__(self, json_depth: int) -> None:
        super().__init__(Endpoint.EMBEDDINGS, json_depth)

    def serve(self, route: Route) -> _Model:
        """See `Family`."""
        rules = EmbeddingRules(route.model, capabilities_of(route.model))
        return _Model(route=route, id=route.model_id, endpoint=self.endpoint, path=_PATH, rules=rules)

    def check(self, arrival: Arrival, model: _Model) -> EmbeddingRequest:
        """See `Family`."""
        return model.rules.check(arrival.members)

    def estimate(self, arrival: Arrival, checked: EmbeddingRequest) -> int:
        """See `Family`."""
        return sum(
            len(one) // _CHARACTERS_A_TOKEN + _TOKENS_A_TEXT if type(one) is str else len(one) for one in checked.inputs
        )

    def ask(
        self,
        arrival: Arrival,
        principal: Principal,
        model: _Model,
        checked: EmbeddingRequest,
        controls: RequestControls,
    ) -> Ask:
        """See `Family`."""
        received = Content(arrival.request.body)
        ours = model.route.embedded
        sent = _framed(model, checked) if ours else _for_upstream(model, checked, arrival, received)
        renamed = partial(_renamed, checked) if model.route.several_names else None
        return arrival.ask(principal, model, sent, received, controls, stream=False, renamed=renamed)

    def speaker(
        self, arrival: Arrival, ask: Ask, checked: EmbeddingRequest, grant: Grant | None, rates: RateLimits
    ) -> "EmbeddingSpeaker":
        """See `Family`."""
        return EmbeddingSpeaker(arrival.outlet, ask, checked, grant, rates)

    def sketch(self, arrival: Arrival) -> Sketch:
        """See `Family`."""
        return sketch_of(arrival.body, PARAMETERS, arrival.phase, body_bytes=len(arrival.request.body))


class EmbeddingSpeaker(PlainSpeaker[EmbeddingRequest]):
    """The client's side of one request (`Speaker`)."""

    __slots__ = ()

    def read(self, body: bytes) -> None:
        """See `Speaker`. Our own engine has told what the answer cost, and need not be checked."""
        if self._ask.route.embedded:
            return
        try:
            found = _answer(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):  # its text may quote the body
            raise MalformedError from None
        if len(found.data) != len(self._checked.inputs):
            raise MalformedError
        self.tokens = NO_TOKENS if found.usage is None else tokens_of(found.usage)

    def sketch(self, phase: Phase, upstream_status: int, answered_bytes: int) -> Sketch:
        """See `Speaker`."""
        return sketch_of(
            self._checked.body,
            PARAMETERS,
            phase,
            body_bytes=self._ask.received.size,
            upstream_status=upstream_status,
            answered_bytes=answered_bytes,
            flags=NO_FLAG if self._ask.controls == NO_REQUEST else Flag.PRIVACY_SWITCH,
        )


def _framed(model: _Model, checked: EmbeddingRequest) -> Content:
    """What our own engine is asked."""
    body: dict[str, Any] = checked.body
    header = EmbeddingHeader(
        model=str(model.id), base64=body.get("encoding_format") == "base64", dimensions=body.get("dimensions")
    )
    return Content(pack(_encode(header), _encode(checked.inputs)))


def _for_upstream(model: _Model, checked: EmbeddingRequest, arrival: Arrival, received: Content) -> Content:
    """What an upstream is asked. What was received is sent on only where it is our encoding, byte for byte."""
    if model.route.name is not None:
        return _renamed(checked, model.route.name)
    if checked.changed:
        return Content(_encode(checked.body))
    return received if arrival.encoded == arrival.request.body else Content(arrival.encoded)


def _renamed(checked: EmbeddingRequest, name: str) -> Content:
    """The same for an upstream that calls the model by a name of its own."""
    return Content(_encode({**checked.body, "model": name}))
