"""Ask an ASGI application one thing, in this thread, without a server."""

import asyncio
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Send


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


def call(app: ASGIApp, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
    """The application's answer to one request."""
    messages: list[Message] = []
    asked: list[bool] = []

    async def receive() -> Message:
        if asked:  # whoever asks again wants to know when the client leaves: it stays
            await asyncio.Event().wait()
        asked.append(True)
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        messages.append(message)

    target, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": target,
        "raw_path": target.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1),
    }
    asyncio.run(_run(app, scope, receive, send))
    start = messages[0]
    return Answer(
        start["status"],
        {name.decode().lower(): value.decode() for name, value in start["headers"]},
        b"".join(m.get("body", b"") for m in messages[1:]),
    )


async def _run(app: ASGIApp, scope: dict[str, object], receive: Receive, send: Send) -> None:
    await app(scope, receive, send)
