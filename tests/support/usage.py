"""Usage records for tests."""

from typing import Any, Final

from keepless.ids import Id, Prefix, mint
from keepless.usage.record import Endpoint, Outcome, Record, Route

ORGANIZATION: Final = Id("org_" + "o" * 24)
PROJECT: Final = Id("proj_" + "p" * 24)
KEY: Final = Id("key_" + "k" * 24)
MODEL: Final = Id("smollm2-135m-instruct")


def record(at_ms: int = 1_764_000_000_000, **values: Any) -> Record:
    """A request that was answered, unless `values` say otherwise."""
    defaults: dict[str, Any] = {
        "request_id": mint(Prefix.REQUEST),
        "at_ms": at_ms,
        "status": 200,
        "endpoint": Endpoint.CHAT,
        "organization_id": ORGANIZATION,
        "project_id": PROJECT,
        "key_id": KEY,
        "model": MODEL,
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "cached_tokens": 1,
        "outcome": Outcome.ON_ERROR,
        "route": Route.EMBEDDED,
    }
    return Record(**(defaults | values))


def shown(record: Record) -> str:
    """Everything that a record says, as text to search."""
    return str({name: getattr(record, name) for name in Record.__slots__})
