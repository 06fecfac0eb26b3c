"""What comes with a request for a page: its method, and a form that is read within bounds.

Holds: `Methods`, the ASGI application of one path, and `pairs`. Leaves out: who sends it (guard), what is answered.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar
from urllib.parse import parse_qsl

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from keepless.errors import Code, Problem

__all__ = ["Methods", "pairs"]

H = TypeVar("H")


class Methods(Generic[H]):
    """The methods of one path. An ASGI application, so that it is given every method and can name those it has.

    `answer` is called in a worker thread with the handler (None: the path has no methods at all) and the form's bytes,
    or None for a form of more than `most` bytes, which is not read to its end.
    """

    def __init__(
        self, handlers: Mapping[str, H], answer: Callable[[H | None, Request, bytes | None], Response], most: int
    ) -> None:
        self._handlers: Final = handlers
        self._answer: Final = answer
        self._most: Final = most

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See ASGI."""
        request = Request(scope, receive)
        handler = self._handlers.get("GET" if request.method == "HEAD" else request.method)
        if handler is None and self._handlers:
            raise HTTPException(405, headers={"allow": ", ".join(sorted(self._handlers))})
        raw = await self._body(request)
        answer = await run_in_threadpool(self._answer, handler, request, raw)
        await answer(scope, receive, send)

    async def _body(self, request: Request) -> bytes | None:
        parts: list[bytes] = []
        size = 0
        async for part in request.stream():
            size += len(part)
            if size > self._most:
                return None
            parts.append(part)
        return b"".join(parts)


def pairs(raw: bytes | None, most: int, most_fields: int) -> dict[str, str]:
    """What was typed, the first of each name. Raises `Problem` 413 for None (more than `most` bytes), 400."""
    if raw is None:
        raise Problem(413, Code.REQUEST_TOO_LARGE, f"The form is larger than {most} bytes.")
    try:
        typed = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=most_fields)
    except (ValueError, UnicodeDecodeError):
        raise Problem(400, Code.INVALID_VALUE, "The form is not valid.") from None
    found: dict[str, str] = {}
    for name, value in typed:
        if "\x00" in value:  # nobody types one, and PostgreSQL takes none
            raise Problem(400, Code.INVALID_VALUE, "The form is not valid.")
        found.setdefault(name, value)
    return found
