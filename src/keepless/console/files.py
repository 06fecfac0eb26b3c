"""Files: what is there, until when, with upload, download and delete.

Names and content are the customer's: they come out of the vault for this page and this download alone (ADR 0019), and
never into an address. Owners see the files of every project, also what a feature that is off has left (DECISIONS 6);
others see one project, and features that are on.

Upload: the browser sends the file as the body of a POST, its name in a header -> origin, token, permission -> pieces of
a mebibyte into the vault's sealing -> commit. Leaves out: forms with files (a browser without scripts has the API).
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from keepless.accounts.principal import AdminPrincipal
from keepless.accounts.roles import Permission, Role
from keepless.console.guard import check_origin, check_token
from keepless.console.paging import offered
from keepless.console.services import Services
from keepless.console.visit import Answer, Download, Redirect, View, Visit
from keepless.content import Content, Purpose
from keepless.errors import Code, ErrorType, Problem
from keepless.files.service import FileWriter, Intended
from keepless.files.values import UPLOADED, Described, FilePurpose
from keepless.governance.change import not_found
from keepless.http import problems
from keepless.http.admin_auth import authorise
from keepless.http.failures import stores_may_fail
from keepless.ids import Id, Prefix, parse
from keepless.vault.errors import LocationRedError

__all__ = ["Upload", "ask_delete", "content", "delete", "files"]

_PAGE: Final = 50
_PIECE: Final = 1 << 20
_AT_A_TIME: Final = 16
_NAME_BYTES: Final = 900
_OFFERED: Final = (FilePurpose.BATCH, FilePurpose.FINE_TUNE)


def files(services: Services, visit: Visit) -> Answer:
    """The page."""
    own = visit.organization_id
    projects = services.organizations.projects(own)
    project_id = _project(visit, projects)
    found: list[Described] = []
    more, refused = False, None
    if project_id is not None or _sees_all(visit.visitor.principal):
        try:
            found, more = services.files.page(own, project_id, limit=_PAGE, after=visit.asked_id("after", Prefix.FILE))
        except Problem as problem:
            if problem.code is not Code.FEATURE_DISABLED:
                raise
            refused = problem.message
    return View(
        "files.html",
        {
            "rows": [{"it": one, "name": one.name.decode("utf-8", "replace")} for one in found],
            "after": found[-1].file.id if more else None,
            "refused": refused,
            "projects": offered(projects, project_id),
            "project_id": project_id,
            "all": _sees_all(visit.visitor.principal),
            "purposes": _OFFERED,
            "most": services.files.limits.file_bytes,
        },
    )


def content(services: Services, visit: Visit) -> Answer:
    """A file's content, as it was kept."""
    own, file_id = visit.organization_id, visit.id("file_id", Prefix.FILE)
    reader = services.files.open(file_id, own, _reach(services, visit, file_id), Purpose.CUSTOMER)
    return Download(f"{file_id}.jsonl", "application/octet-stream", _revealed(reader.stream()))


def _revealed(parts: Iterable[Content]) -> Iterator[bytes]:
    for part in parts:
        yield part.reveal(Purpose.CUSTOMER)


def ask_delete(services: Services, visit: Visit) -> Answer:
    """Whether a file shall end."""
    file_id = visit.id("file_id", Prefix.FILE)
    it = services.files.describe(file_id, visit.organization_id, _reach(services, visit, file_id))
    return View(
        "ask.html",
        {
            "title": "Delete the file",
            "about": it.name.decode("utf-8", "replace"),
            "text": "Its key is destroyed and the store deletes the bytes before this answers. Batches that read it "
            "end with what is done; results and models that exist stay. It cannot be undone.",
            "action": f"/files/{file_id}/delete",
            "back": "/files",
            "back_title": "Files",
            "phrase": "delete",
            "button": "Delete for good",
            "fields": {},
        },
    )


def delete(services: Services, visit: Visit) -> Answer:
    """Destroy a file; leads to its receipt."""
    visit.confirm("delete")
    own, file_id = visit.organization_id, visit.id("file_id", Prefix.FILE)
    reach = _reach(services, visit, file_id)
    object_id = services.files.describe(file_id, own, reach).file.object_id
    services.files.delete(file_id, own, reach)
    services.file_deleted(file_id)
    return Redirect(f"/receipts?object={object_id}", "deleted")


def _sees_all(principal: AdminPrincipal) -> bool:
    return principal.role is Role.OWNER


def _project(visit: Visit, projects: list[Any]) -> Id | None:
    """The project that is looked at; None: all of them (owners), or there is none."""
    asked = visit.asked_id("project", Prefix.PROJECT)
    if asked is not None:
        if all(one.id != asked for one in projects):
            raise not_found()
        return asked
    return None if _sees_all(visit.visitor.principal) or not projects else projects[0].id


def _reach(services: Services, visit: Visit, file_id: Id) -> Id | None:
    """The project through which a visitor reaches a file: owners need none. Raises `Problem` 404."""
    if _sees_all(visit.visitor.principal):
        return None
    return services.files.describe(file_id, visit.organization_id, None).file.project_id


class Upload:
    """POST of a file, as an ASGI application: the body is never whole in memory."""

    def __init__(self, services: Services) -> None:
        self._services: Final = services
        self._running = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Take one file."""
        request = Request(scope, receive)
        self._running += 1
        try:
            answer = await self._taken(request)
        except Problem as problem:
            answer = problems.response(problem, str(scope.get(problems.REQUEST_ID, "")))
        finally:
            self._running -= 1
        await answer(scope, receive, send)

    async def _taken(self, request: Request) -> Response:
        if request.method != "POST":
            raise Problem(405, Code.METHOD_NOT_ALLOWED, "A file is sent with POST.", headers={"allow": "POST"})
        principal = await run_in_threadpool(self._allowed, request)
        own = principal.organization_id
        if own is None:
            raise not_found()
        if self._running > _AT_A_TIME:
            raise Problem(503, Code.OVERLOADED, "Too many uploads at a time.", type=ErrorType.SERVER)
        project_id, intended = await run_in_threadpool(self._intended, request, own)
        writer = await run_in_threadpool(self._services.files.writing, own, project_id)
        try:
            held = bytearray()
            async for piece in request.stream():
                held += piece
                if len(held) >= _PIECE:
                    await run_in_threadpool(writer.write, Content(bytes(held)))
                    held.clear()
            return await run_in_threadpool(_committed, writer, bytes(held), intended)
        finally:
            await run_in_threadpool(writer.abort)

    def _allowed(self, request: Request) -> AdminPrincipal:
        with stores_may_fail():
            visitor = self._services.doorkeeper(request)
        if visitor is None:
            message = "Nothing was kept: you are not signed in, or your session has ended."
            raise Problem(401, Code.INVALID_API_KEY, message, type=ErrorType.AUTHENTICATION)
        check_origin(request)
        check_token(visitor, request.headers.get("x-csrf-token", ""))
        authorise(visitor.principal, Permission.FILES_MANAGE)
        return visitor.principal

    def _intended(self, request: Request, own: Id) -> tuple[Id, Intended]:
        project_id = parse(request.headers.get("x-file-project", ""), Prefix.PROJECT)
        if project_id is None or all(one.id != project_id for one in self._services.organizations.projects(own)):
            raise not_found()
        named = [one for one in _OFFERED if one.value == request.headers.get("x-file-purpose")]
        name = unquote_to_bytes(request.headers.get("x-file-name", ""))
        if not named or not 1 <= len(name) <= _NAME_BYTES:
            message = f"A file has a purpose and a name of 1 to {_NAME_BYTES} bytes."
            raise Problem(400, Code.INVALID_VALUE, message, param="purpose")
        intended = Intended(purpose=named[0], data_class=UPLOADED[named[0]], name=Content(name))
        self._services.files.check(own, project_id, intended)
        return project_id, intended


def _committed(writer: FileWriter, rest: bytes, intended: Intended) -> Response:
    try:
        with stores_may_fail():
            if rest or not writer.size:
                writer.write(Content(rest))
            one, _ = writer.commit(intended)
    except LocationRedError:
        message = "Nothing was kept: the location does not keep its promises at the moment."
        raise Problem(503, Code.STORE_FAILED, message, type=ErrorType.SERVER, retry=False) from None
    return JSONResponse({"id": str(one.id)}, headers={"cache-control": "no-store"})
