"""Uploads of files in parts, as the official SDK of OpenAI expects: create, add parts, complete, cancel.

Holds: `routes`. Leaves out: the steps (files.uploads), forms (file_form), the row of usage (recorded).
"""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from keepless.accounts.lease import Lease
from keepless.clock import Clock
from keepless.config import Endpoint
from keepless.content import Content
from keepless.errors import Code, Problem
from keepless.files.uploads import PartWriter, Uploads, part_too_large
from keepless.files.values import Described, Upload
from keepless.gateway.behind import written
from keepless.gateway.file_form import FileForm, ends_after, purpose_of, tell_encoding
from keepless.gateway.files import demand_keeping, file_json
from keepless.gateway.json_body import decode_object
from keepless.gateway.recorded import Call, Handler, Places, Recorded, in_thread
from keepless.gateway.switches import combined, from_body
from keepless.ids import Id, Prefix, parse
from keepless.policy.controls import RequestControls
from keepless.usage.ledger import Ledger
from keepless.vault.writer import LONGEST_LABEL

__all__ = ["routes"]

_BASES: Final = ("/v1", "/openai/v1")
_BODY_BYTES: Final = 1 << 20
_DEPTH: Final = 8
_NEW: Final = frozenset({"bytes", "filename", "mime_type", "purpose", "expires_after"})
_COMPLETE: Final = frozenset({"part_ids", "md5"})
_LONGEST_TYPE: Final = 200


def routes(uploads: Uploads, *, lease: Lease, ledger: Ledger, clock: Clock, at_a_time: int) -> Sequence[BaseRoute]:
    """The routes, below both bases. `at_a_time`: how many parts one process takes."""
    calls = _Calls(uploads, Places(at_a_time))
    paths: dict[str, dict[str, Handler]] = {
        "/uploads": {"POST": calls.create},
        "/uploads/{id}/parts": {"POST": calls.add},
        "/uploads/{id}/complete": {"POST": calls.complete},
        "/uploads/{id}/cancel": {"POST": calls.cancel},
    }
    return [
        Route(base + path, Recorded(Endpoint.UPLOADS, handlers, lease=lease, ledger=ledger, clock=clock))
        for base in _BASES
        for path, handlers in paths.items()
    ]


class _Calls:
    def __init__(self, uploads: Uploads, places: Places) -> None:
        self._uploads: Final = uploads
        self._places: Final = places

    async def create(self, call: Call) -> Response:
        body, controls = await _asked(call, _NEW)
        after = {} if body.get("expires_after") is None else body["expires_after"]
        if type(after) is not dict:
            raise _wrong("expires_after", "an object")
        size, name, kind = body.get("bytes"), body.get("filename"), body.get("mime_type")
        if type(size) is not int or size < 1:
            raise _wrong("bytes", "a whole number, at least 1")
        encoded = name.encode("utf-8", "replace") if type(name) is str else b""
        if not 0 < len(encoded) <= LONGEST_LABEL:
            raise _wrong("filename", f"a text of 1 to {LONGEST_LABEL} bytes in UTF-8")
        if type(kind) is not str or len(kind) > _LONGEST_TYPE:
            raise _wrong("mime_type", "a text")
        ends_after_s = ends_after(after.get("anchor"), after.get("seconds"))
        purpose = purpose_of(body.get("purpose"))
        caller = call.caller
        project_id = caller.project
        one, kept = await in_thread(
            lambda: self._uploads.create(
                caller.organization_id,
                project_id,
                purpose=purpose,
                size=size,
                name=Content(encoded),
                ends_after_s=ends_after_s,
                request=controls,
                request_id=call.request_id,
            )
        )
        call.kept = kept
        return JSONResponse(_json(one, encoded))

    async def add(self, call: Call) -> Response:
        upload_id, request, caller = _id(call.request), call.request, call.caller
        tell_encoding(request.headers.get("content-encoding"))
        demand_keeping(call.controls)
        form = FileForm(
            request.headers.get("content-type", "").encode("latin-1"),
            most=self._uploads.part_bytes,
            part="data",
            fields=frozenset(),
            refusal=part_too_large,
        )
        project_id = caller.project
        async with AsyncExitStack() as stack:
            stack.enter_context(self._places.one(call.caller.organization_id))

            async def opened() -> PartWriter:
                own, request_id = caller.organization_id, call.request_id
                return await in_thread(lambda: self._uploads.adding(upload_id, own, project_id, request_id=request_id))

            writer = await written(stack, form, request.stream(), opened)
            part, kept = await in_thread(writer.commit)
        call.kept = kept
        return JSONResponse(
            {
                "id": str(part.id),
                "object": "upload.part",
                "created_at": part.created_at // 1000,
                "upload_id": str(part.upload_id),
            }
        )

    async def complete(self, call: Call) -> Response:
        upload_id, caller = _id(call.request), call.caller
        body, controls = await _asked(call, _COMPLETE)
        sent, md5 = body.get("part_ids"), body.get("md5")
        if type(sent) is not list or not all(type(one) is str for one in sent):
            raise _wrong("part_ids", "a list of ids")
        if md5 is not None and (type(md5) is not str or len(md5) > 64):
            raise _wrong("md5", "a hexadecimal text")
        part_ids = [parse(one, Prefix.UPLOAD_PART) or Id("") for one in sent]
        project_id = caller.project
        one, file, kept, name = await in_thread(
            lambda: self._uploads.complete(
                upload_id,
                caller.organization_id,
                project_id,
                part_ids,
                md5=None if md5 is None else md5.lower(),
                request=controls,
                request_id=call.request_id,
            )
        )
        call.kept = kept
        return JSONResponse({**_json(one, name), "file": file_json(Described(file, kept.expires_at, name))})

    async def cancel(self, call: Call) -> Response:
        upload_id, caller = _id(call.request), call.caller
        project_id = caller.project
        one, name = await in_thread(lambda: self._uploads.cancel(upload_id, caller.organization_id, project_id))
        return JSONResponse(_json(one, name))


async def _asked(call: Call, known: frozenset[str]) -> tuple[dict[str, Any], RequestControls]:
    """The body, and what it and the headers tighten. Raises `Problem`."""
    raw = bytearray()
    async for chunk in call.request.stream():
        raw += chunk
        if len(raw) > _BODY_BYTES:
            raise Problem(413, Code.REQUEST_TOO_LARGE, f"The body is larger than {_BODY_BYTES} bytes.")
    body, _ = decode_object(bytes(raw), _DEPTH)
    controls = combined(call.controls, from_body(body))
    demand_keeping(controls)
    if not body.keys() <= known:
        raise Problem(400, Code.UNKNOWN_PARAMETER, "The body has a member that this endpoint does not know.")
    return body, controls


def _wrong(name: str, expected: str) -> Problem:
    return Problem(400, Code.INVALID_TYPE, f"'{name}' must be {expected}.", param=name)


def _id(request: Request) -> Id:
    upload_id = parse(request.path_params["id"], Prefix.UPLOAD)
    if upload_id is None:
        raise Problem(404, Code.NOT_FOUND, "No such Upload object.", param="upload_id")
    return upload_id


def _json(one: Upload, name: bytes) -> dict[str, Any]:
    return {
        "id": str(one.id),
        "object": "upload",
        "bytes": one.size,
        "created_at": one.created_at // 1000,
        "expires_at": one.expires_at // 1000,
        "filename": name.decode("utf-8", "replace"),
        "purpose": one.purpose.value,
        "status": one.state.value,
        "file": None,
    }
