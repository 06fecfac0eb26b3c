"""A stand-in for the part of Google's JSON API that tells a bucket's settings, and for its token endpoint."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROMISED = {
    "location": "US-EAST1",
    "locationType": "region",
    "iamConfiguration": {"publicAccessPrevention": "enforced", "uniformBucketLevelAccess": {"enabled": True}},
    "softDeletePolicy": {"retentionDurationSeconds": "0"},
    "lifecycle": {"rule": [{"action": {"type": "AbortIncompleteMultipartUpload"}, "condition": {"age": 1}}]},
}


class GcsSettings:
    """A small server: answers with `bucket` (a value, or raw bytes) and `status`; remembers what it was asked."""

    def __init__(self) -> None:
        self.bucket: Any = dict(PROMISED)
        self.status = 200
        self.asked: list[tuple[str, str, str]] = []
        self.forms: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append((self.command, self.path, self.headers.get("authorization", "")))
                raw = server.bucket if isinstance(server.bucket, bytes) else json.dumps(server.bucket).encode()
                self._answer(server.status, raw)

            def do_POST(self) -> None:
                server.forms.append(self.rfile.read(int(self.headers["content-length"])).decode())
                self._answer(200, b'{"access_token": "from-account", "expires_in": 3600}')

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
