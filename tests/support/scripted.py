"""An upstream over a real socket that answers what a test scripted, and remembers what it was asked."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

# path below /v1, decoded body -> an answer (an object), or events and whether the stream ends as it should
Script = Callable[[str, dict[str, Any]], "dict[str, Any] | list[bytes]"]


class ScriptedUpstream:
    """`with` it; `base_url` ends in `/v1`."""

    def __init__(self, script: Script) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"  # the end of the connection is the end of the answer

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                path = self.path.removeprefix("/v1")
                upstream.asked.append((path, body))
                answer = script(path, body)
                stream = isinstance(answer, list)
                self.send_response(200)
                self.send_header("content-type", "text/event-stream" if stream else "application/json")
                self.end_headers()
                for piece in answer if isinstance(answer, list) else [json.dumps(answer).encode()]:
                    self.wfile.write(piece)
                    self.wfile.flush()

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
