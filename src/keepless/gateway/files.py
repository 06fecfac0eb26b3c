"""Files: upload, list, retrieve, content, delete, as the official SDKs of OpenAI and Groq expect.

Holds: `routes`. Leaves out: the form (file_form), what is kept and how (files), the row of usage (recorded).

An upload goes from the client's socket through the form's parser into the vault's sealing, and the next pieces come
while some are sealed (behind): neither memory nor a temporary file ever holds it. Content goes the same way back, whole
or one range (RFC 9110, 14).
An owner's admin key may list, read and delete the files of every project of the organization, also what a feature that
is off has left (DECISIONS 6); an API key sees the files of its own project, and of features that are on.
"""

import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from keepless.accounts.lease import Lease
from keepless.clock import Clock
from keepless.config import Endpoint
from keepless.content import Content, Purpose
from keepless.errors import Code, Problem
from keepless.files import refusals
from keepless.files.service import Files, FileWriter, Intended
from keepless.files.values import UPLOADED, Described, FilePurpose
from keepless.gateway.behind import written
from keepless.gateway.file_form import FileForm, purpose_of, tell_encoding
from keepless.gateway.recorded import Call, Handler, Places, Recorded, in_thread
from keepless.gateway.switches import combined
from keepless.ids import Id, Prefix, parse
from keepless.policy.controls import RequestControls
from keepless.policy.refusal import feature_disabled
from keepless.policy.schedule import row_of
from keepless.usage.ledger import Ledger

__all__ = ["FORM_BYTES", "FileCalls", "demand_keeping", "file_json", "routes"]

_BASES: Final = ("/v1", "/openai/v1")
_RANGE: Final = re.compile(r"bytes=[ \t]*(\d{0,30})-(\d{0,30})\Z", re.IGNORECASE | re.ASCII)
_PLAIN: Final = re.compile(rb"[A-Za-z0-9._-]+\Z")
_MOST: Final = 10_000
FORM_BYTES: Final = 1 << 20  # what a form may have around its file
_LISTED: Final = {
    **{purpose.value: purpose for purpose in FilePurpose},
    "fine_tuning": FilePurpose.FINE_TUNE,
}


OnDelete = Callable[[Id], Mapping[str, Any]]  # members of the answer


def _nothing_more(_: Id) -> Mapping[str, Any]:
    return {}


def routes(
    files: Files,
    *,
    lease: Lease,
    ledger: Ledger,
    clock: Clock,
    uploads: int,
    on_delete: OnDelete = _nothing_more,
    on_downloaded: Callable[[Id], None] = lambda _: None,
) -> Sequence[BaseRoute]:
    """The routes, below both bases.

    `uploads`: how many are taken at a time; `on_delete` is told of a file's end, and says what of it stays elsewhere;
    `on_downloaded` that its last byte was handed out.
    """
    calls = FileCalls(files, uploads, on_delete, on_downloaded)
    paths: dict[str, dict[str, Handler]] = {
        "/files": {"GET": calls.index, "POST": calls.create},
        "/files/{id}": {"GET": calls.one, "DELETE": calls.delete},
        "/files/{id}/content": {"GET": calls.content},
    }
    owners = frozenset({"GET", "DELETE"})
    return [
        Route(
            base + path,
            Recorded(Endpoint.FILES, handlers, lease=lease, ledger=ledger, clock=clock, owners=owners),
        )
        for base in _BASES
        for path, handlers in paths.items()
    ]


def file_json(it: Described) -> dict[str, Any]:
    """A file as both SDKs read it."""
    return {
        "id": str(it.file.id),
        "object": "file",
        "bytes": it.file.size,
        "created_at": it.file.created_at // 1000,
        "expires_at": None if it.ends_at is None else it.ends_at // 1000,
        "filename": it.name.decode("utf-8", "replace"),
        "purpose": it.file.purpose.value,
        "status": "processed",
        "status_details": None,
    }


class FileCalls:
    """What each call does."""

    def __init__(self, files: Files, uploads: int, on_delete: OnDelete, on_downloaded: Callable[[Id], None]) -> None:
        self._files: Final = files
        self._places: Final = Places(uploads)
        self._on_delete: Final = on_delete
        self._on_downloaded: Final = on_downloaded

    # --- upload ------------------------------------------------------------------------------------------------------

    async def create(self, call: Call) -> Response:
        """POST /files."""
        request, caller = call.request, call.caller
        project_id = caller.project
        tell_encoding(request.headers.get("content-encoding"))
        demand_keeping(call.controls)
        _demand_a_feature(call)
        content_type = request.headers.get("content-type", "").encode("latin-1")
        form = FileForm(content_type, most=self._files.limits.file_bytes)
        async with AsyncExitStack() as stack:
            stack.enter_context(self._places.one(call.caller.organization_id))

            async def opened() -> FileWriter:
                if form.purpose is not None:
                    wanted = _intended(form, form.purpose, call)
                    await in_thread(lambda: self._files.check(caller.organization_id, project_id, wanted))
                return await in_thread(lambda: self._files.writing(caller.organization_id, project_id))

            writer = await written(stack, form, request.stream(), opened)
            intended = _intended(form, purpose_of(None) if form.purpose is None else form.purpose, call)
            if writer.size == 0:
                raise refusals.empty()
            one, kept = await in_thread(lambda: writer.commit(intended))
        call.kept = kept
        return JSONResponse(file_json(Described(one, kept.expires_at, form.file_name or b"")))

    # --- read --------------------------------------------------------------------------------------------------------

    async def index(self, call: Call) -> Response:
        """GET /files."""
        query, caller = call.request.query_params, call.caller
        limit = _limit(query.get("limit"))
        order = query.get("order", "desc")
        if order not in ("asc", "desc"):
            raise Problem(400, Code.INVALID_VALUE, "'order' must be asc or desc.", param="order")
        purpose = query.get("purpose")
        if purpose is not None and purpose not in _LISTED:
            allowed = ", ".join(_LISTED)
            raise Problem(400, Code.INVALID_VALUE, f"'purpose' must be one of: {allowed}.", param="purpose")
        after = query.get("after", query.get("cursor"))
        place = None if after is None else parse(after, Prefix.FILE)
        if after is not None and place is None:
            raise refusals.no_such_file()
        found, more = await in_thread(
            lambda: self._files.page(
                caller.organization_id,
                caller.project_id,
                limit=limit,
                after=place,
                oldest_first=order == "asc",
                purpose=None if purpose is None else _LISTED[purpose],
            )
        )
        data = [file_json(one) for one in found]
        last = data[-1]["id"] if data else None
        return JSONResponse(
            {
                "object": "list",
                "data": data,
                "first_id": data[0]["id"] if data else None,
                "last_id": last,
                "has_more": more,
                "paging": {"next_cursor": last if more else None},
            }
        )

    async def one(self, call: Call) -> Response:
        """GET /files/{id}."""
        file_id, caller = _id(call.request), call.caller
        it = await in_thread(lambda: self._files.describe(file_id, caller.organization_id, caller.project_id))
        return JSONResponse(file_json(it))

    async def content(self, call: Call) -> Response:
        """GET /files/{id}/content, whole or one range."""
        file_id, caller = _id(call.request), call.caller
        reader = await in_thread(
            lambda: self._files.open(file_id, caller.organization_id, caller.project_id, Purpose.CUSTOMER)
        )
        label = await in_thread(reader.label)
        headers = {
            "accept-ranges": "bytes",
            "cache-control": "no-store",
            "content-disposition": _disposition(b"" if label is None else label.reveal(Purpose.CUSTOMER)),
        }
        sent = call.request.headers
        # What an earlier answer is to be continued by has no validator here: RFC 9110 then wants all of it.
        asked = None if "if-range" in sent else _range(sent.get("range"), reader.size)
        start, stop = (0, reader.size) if asked is None else asked
        headers["content-length"] = str(stop - start)
        if asked is not None:
            headers["content-range"] = f"bytes {start}-{stop - 1}/{reader.size}"
        return StreamingResponse(
            _pieces(reader.stream(start, stop), self._downloaded(file_id) if stop == reader.size else None),
            status_code=200 if asked is None else 206,
            headers=headers,
            media_type="application/octet-stream",
        )

    def _downloaded(self, file_id: Id) -> Callable[[], None]:
        return lambda: self._on_downloaded(file_id)

    # --- delete ------------------------------------------------------------------------------------------------------

    async def delete(self, call: Call) -> Response:
        """DELETE /files/{id}."""
        file_id, caller = _id(call.request), call.caller

        def act() -> Mapping[str, Any]:
            self._files.delete(file_id, caller.organization_id, caller.project_id)
            return self._on_delete(file_id)

        more = await in_thread(act)
        return JSONResponse({"id": str(file_id), "object": "file", "deleted": True, **more})


def _disposition(name: bytes) -> str:
    """A name as every client can read it, and a plain one also for those that know no other (curl)."""
    plain = f' filename="{name.decode("ascii")}";' if _PLAIN.match(name) else ""
    return f"attachment;{plain} filename*=UTF-8''{quote(name, safe='')}"


async def _pieces(stream: Iterator[Content], after: Callable[[], None] | None) -> AsyncIterator[bytes]:
    while (piece := await in_thread(lambda: next(stream, None))) is not None:
        yield piece.reveal(Purpose.CUSTOMER)
    if after is not None:  # the client took every piece
        await in_thread(after)


def _intended(form: FileForm, purpose: FilePurpose, call: Call) -> Intended:
    controls = combined(call.controls, form.controls)
    demand_keeping(controls)
    return Intended(
        purpose=purpose,
        data_class=UPLOADED[purpose],
        name=Content(form.file_name or b""),
        request=controls,
        request_id=call.request_id,
        ends_after_s=form.ends_after_s,
    )


def demand_keeping(controls: RequestControls) -> None:
    """Refuse a call that must keep something when a switch of the request forbids it. Raises `Problem` 400."""
    if controls.keep_nothing or controls.zero_upstream:
        raise refusals.retention_conflict()


def _demand_a_feature(call: Call) -> None:
    """Refuse before a body is read when there is no feature whose files this project may keep."""
    principal = call.caller.principal
    if principal is not None and not any(principal.project.effective.allows(one) for one in UPLOADED.values()):
        feature = row_of(UPLOADED[FilePurpose.BATCH]).feature
        raise feature_disabled(feature, principal.project.effective.feature_source[feature])


def _id(request: Request) -> Id:
    file_id = parse(request.path_params["id"], Prefix.FILE)
    if file_id is None:
        raise refusals.no_such_file()
    return file_id


def _limit(text: str | None) -> int:
    if text is None:
        return _MOST
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= _MOST):
        raise Problem(400, Code.INVALID_VALUE, f"'limit' must be a whole number from 1 to {_MOST}.", param="limit")
    return int(text)


def _range(header: str | None, size: int) -> tuple[int, int] | None:
    """The one range that was asked for; None = all of it. Raises `Problem` 416.

    Several ranges, and units that nobody knows, are answered whole, as RFC 9110 allows.
    """
    match = None if header is None else _RANGE.match(header.strip())
    if match is None or not (match[1] or match[2]):
        return None
    if match[1]:
        start = int(match[1])
        stop = min(size, int(match[2]) + 1) if match[2] else size
        if match[2] and int(match[2]) < start:
            return None
    else:
        start, stop = max(0, size - int(match[2])), size
    if start >= stop:
        raise Problem(
            416,
            Code.INVALID_VALUE,
            "The range begins behind the end of the file.",
            headers={"content-range": f"bytes */{size}"},
        )
    return start, stop
