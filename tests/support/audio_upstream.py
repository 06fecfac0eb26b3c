"""An upstream that transcribes: it answers what the `prompt` field asks for, and remembers what it was sent."""

import email
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class AudioUpstream(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repeat = 1  # how often it says the first word of a stream
        self.seen: list[tuple[str, list[tuple[str, str | None, bytes]]]] = []

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        head = b"content-type: " + self.headers["content-type"].encode() + b"\r\n\r\n"
        message = email.message_from_bytes(head + body, policy=HTTP)
        parts = [
            (part.get_param("name", header="content-disposition"), part.get_filename(), part.get_payload(decode=True))
            for part in message.iter_parts()
        ]
        self.server.seen.append((self.path, parts))
        fields = {name: data for name, _, data in parts}
        kind, status = "application/json", 200
        answer = b'{"text":"from upstream","usage":{"type":"duration","seconds":3}}'
        if fields.get("stream") == b"true":
            kind = "text/event-stream"
            answer = b"".join(
                b"data: " + json.dumps(event).encode() + b"\n\n"
                for event in (
                    *[{"type": "transcript.text.delta", "delta": "from "}] * self.server.repeat,
                    {"type": "transcript.text.delta", "delta": "upstream"},
                    {"type": "transcript.text.done", "text": "from upstream", "usage": {"input_tokens": 7}},
                )
            )
        elif fields.get("response_format") == b"text":
            kind, answer = "text/plain", b"from upstream\n"
        if fields.get("prompt") == b"refuse":
            status, answer = 400, b'{"error":{"message":"no","type":"invalid_request_error","param":"file","code":"x"}}'
        if fields.get("prompt") == b"fail":
            status, answer = 500, b"{}"
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


@contextmanager
def audio_upstream() -> Iterator[AudioUpstream]:
    server = AudioUpstream()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
