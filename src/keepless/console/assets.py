"""The console's own files: read once, served from memory under a name that changes with what is in them.

Holds: `url` and `serve`. What is vendored comes from npm, pinned (web/package.json), with its licence beside it.
"""

import gzip
from hashlib import sha256
from importlib.resources import files
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from keepless.errors import Code, Problem

__all__ = ["serve", "url"]

_TYPES: Final = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
_NAMES: Final = (
    "console.css",
    "console.js",
    "icon.svg",
    "vendor/htmx.min.js",
    "vendor/uplot.min.js",
    "vendor/uplot.min.css",
)
_HEADERS: Final = {
    "cache-control": "public, max-age=31536000, immutable",
    "cross-origin-resource-policy": "same-origin",
    "vary": "accept-encoding",
    "x-content-type-options": "nosniff",
}


def _read(name: str) -> bytes:
    found = files("keepless.console") / "static"
    for part in name.split("/"):
        found = found / part
    return found.read_bytes()


_PLAIN: Final = {name: _read(name) for name in _NAMES}
_PACKED: Final = {name: gzip.compress(data, mtime=0) for name, data in _PLAIN.items()}
_DIGEST: Final = {name: sha256(data).hexdigest()[:12] for name, data in _PLAIN.items()}


def url(name: str) -> str:
    """Where a file of ours is served."""
    return f"/static/{_DIGEST[name]}/{name}"


async def serve(request: Request) -> Response:
    """One file. Needs no sign-in: nothing in it is anybody's."""
    name = request.path_params["name"]
    if name not in _PLAIN:
        raise Problem(404, Code.NOT_FOUND, "There is no such file.")
    headers = {"content-type": _TYPES[name.rpartition(".")[2]], **_HEADERS}
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(_PACKED[name], headers={**headers, "content-encoding": "gzip"})
    return Response(_PLAIN[name], headers=headers)
