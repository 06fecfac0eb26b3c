"""What a speaker of /responses says when it fails: the shape of the request, never its content (see test_responses)."""

import msgspec
import pytest

from keepless.config import Endpoint
from keepless.inference.backend import FailureKind
from keepless.usage.record import Flag, Phase, Role, roles_to
from tests.support.way import asked, fail


@pytest.mark.parametrize("model", ["zero", "native"])
def test_a_failed_request_leaves_its_shape(model: str) -> None:
    more = {"model": model, "instructions": "MARKER", "max_output_tokens": 9, "store": False}
    _, harness = asked(fail(FailureKind.CUT), more=more, to=Endpoint.RESPONSES)
    sketch = harness.rows[0].sketch
    assert sketch is not None
    assert (sketch.phase, roles_to(sketch.roles), sketch.max_tokens) == (Phase.CONNECT, [Role.USER], 9)
    assert sketch.flags == Flag.SYSTEM | Flag.PRIVACY_SWITCH
    assert sketch.body_bytes > 0
    assert "MARKER" not in str(msgspec.structs.asdict(sketch))
