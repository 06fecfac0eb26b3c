"""The entrance of the console: the only pages for who is not signed in yet, and the way out.

Holds: `routes`, `ROUTES` (method, path: a route that is not in it does not exist). Leaves out: who a person is
(governance.sign_in), the provider's way (oidc), every other page (app).

A link shows a page first and opens nothing: what looks at links before people do (mail scanners, previews) uses none
up. Every form is refused unless the browser says that it came from a page of ours; a signed-in person's form carries
the session's token as well. Answers never say what was wrong about an address, a password or a link.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from keepless.accounts.people_tables import Method
from keepless.accounts.roles import Role
from keepless.config import OidcConfig
from keepless.console import render
from keepless.console.forms import Methods, pairs
from keepless.console.guard import check_origin, check_token
from keepless.console.services import Visitor
from keepless.errors import Code, ConfigError, Problem
from keepless.governance.change import not_found
from keepless.governance.people import People
from keepless.governance.sign_in import Opened
from keepless.http import problems
from keepless.http.failures import stores_may_fail
from keepless.http.provider import Provider, ProviderError, ProviderOf
from keepless.http.sessions import Sessions, SignedIn, check_from_here, own_path
from keepless.http.visitors import Visitors
from keepless.ids import Id, trusted

__all__ = ["ROUTES", "Entrance", "Federation", "federation_of", "routes"]

_FORM_BYTES: Final = 16 * 1024
_FIELDS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Federation:
    """A provider, where it sends people back to, and what its groups grant: group, role, organization."""

    provider: Provider
    callback: str
    grants: Sequence[tuple[str, Role, Id | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrance:
    """What the entrance stands on."""

    sessions: Sessions
    people: People
    visitors: Visitors
    federation: Federation | None = None


@dataclass(frozen=True, slots=True)
class _Knock:
    """One request at the entrance."""

    request: Request
    form: dict[str, str]
    present: SignedIn | None

    @property
    def next(self) -> str:
        return own_path(self.form.get("next") or self.request.query_params.get("next") or "/")

    @property
    def secret(self) -> str | None:
        """The session that came with the request ends when another begins."""
        return None if self.present is None else self.present.secret

    def typed(self, name: str) -> str:
        return self.form.get(name, "")


Handler = Callable[[Entrance, _Knock], Response]


def sign_in_page(entrance: Entrance, knock: _Knock) -> Response:
    """The form; who is signed in goes on."""
    if knock.present is None:
        return _form(entrance, knock)
    nobodys = knock.present.session.person.organization_id is None
    return _go("/platform" if nobodys and knock.next == "/" else knock.next)


def sign_in(entrance: Entrance, knock: _Knock) -> Response:
    """An address and a password."""
    check_from_here(knock.request)
    try:
        entrance.visitors.count(knock.request)
        opened = entrance.sessions.sign_in.by_password(
            knock.typed("email"), knock.typed("password"), instead_of=knock.secret
        )
    except Problem as problem:
        return _form(entrance, knock, problem)
    return _in(entrance, opened, knock.next)


def link_page(entrance: Entrance, knock: _Knock) -> Response:
    """What a link shows: it is used by the form."""
    return _token_page("link.html", entrance, knock)


def use_link(entrance: Entrance, knock: _Knock) -> Response:
    """Sign in with a link, and set a password when one was typed."""
    check_from_here(knock.request)
    try:
        entrance.visitors.count(knock.request)
        opened = entrance.sessions.sign_in.by_link(
            knock.typed("token"), password=knock.typed("password"), instead_of=knock.secret
        )
    except Problem as problem:
        return _token_page("link.html", entrance, knock, problem)
    return _in(entrance, opened, "/")


def invite_page(entrance: Entrance, knock: _Knock) -> Response:
    """What an invite shows: it is accepted by the form."""
    return _token_page("invite.html", entrance, knock)


def accept_invite(entrance: Entrance, knock: _Knock) -> Response:
    """Become a member, with a name and a password."""
    check_from_here(knock.request)
    try:
        entrance.visitors.count(knock.request)
        opened = entrance.people.accept(
            knock.typed("token"),
            name=knock.typed("name"),
            password=knock.typed("password"),
            instead_of=knock.secret,
        )
    except Problem as problem:
        return _token_page("invite.html", entrance, knock, problem)
    return _in(entrance, opened, "/")


def again_page(entrance: Entrance, knock: _Knock) -> Response:
    """Prove again who you are."""
    if knock.present is None:
        return _to_sign_in(knock)
    return _again(entrance, knock)


def again(entrance: Entrance, knock: _Knock) -> Response:
    """A new session for the same person, from now on a recent one."""
    if knock.present is None:
        return _to_sign_in(knock)
    _own_form(knock)
    try:
        entrance.visitors.count(knock.request)
        opened = entrance.sessions.sign_in.again_by_password(
            knock.present.session, knock.typed("password"), knock.present.secret
        )
    except Problem as problem:
        return _again(entrance, knock, problem)
    return _in(entrance, opened, knock.next)


def sign_out(entrance: Entrance, knock: _Knock) -> Response:
    """End this session."""
    if knock.present is not None:
        _own_form(knock)
        entrance.sessions.sign_in.out(knock.present.session)
    return _out(entrance)


def sign_out_everywhere(entrance: Entrance, knock: _Knock) -> Response:
    """End every session of this member."""
    if knock.present is not None:
        _own_form(knock)
        entrance.sessions.sign_in.out_everywhere(knock.present.session)
    return _out(entrance)


def to_provider(entrance: Entrance, knock: _Knock) -> Response:
    """Go to the provider."""
    return _to_provider(entrance, knock, None)


def to_provider_again(entrance: Entrance, knock: _Knock) -> Response:
    """Go to the provider to prove again who you are."""
    return _to_sign_in(knock) if knock.present is None else _to_provider(entrance, knock, knock.present)


def from_provider(entrance: Entrance, knock: _Knock) -> Response:
    """Back from the provider: a state of this browser, unused; a good token; a group that grants a role."""
    federation, query = _federation(entrance), knock.request.query_params
    sign_in = entrance.sessions.sign_in
    browser = knock.request.cookies.get(_cookie(entrance), "")[:80]
    try:
        entrance.visitors.count(knock.request)
        visit = sign_in.back(query.get("state", "")[:80], browser)
        again = visit.member_id is not None
        try:
            claims = federation.provider.claims(query.get("code", ""), browser, federation.callback, again=again)
        except ProviderError:
            raise sign_in.refused(None, Method.OIDC) from None
        if visit.invite_id is not None:
            opened = entrance.people.accept_vouched(visit.invite_id, claims.vouched, instead_of=knock.secret)
        else:
            grants = [(role, own) for group, role, own in federation.grants if group in claims.groups]
            opened = entrance.people.by_provider(grants, claims.vouched, instead_of=knock.secret, again=visit.member_id)
    except Problem as problem:
        return _form(entrance, knock, problem)
    return _in(entrance, opened, visit.path)  # the cookie of the way is worth nothing any more, and ends by itself


def to_provider_invited(entrance: Entrance, knock: _Knock) -> Response:
    """Go to the provider to accept an invite: its form says so, and the next page leads there.

    (A form of ours may not lead to another site by itself: the policy of every page says so.)
    """
    check_from_here(knock.request)
    _federation(entrance)
    try:
        entrance.visitors.count(knock.request)
        invite_id = entrance.people.shown_invite(knock.typed("token"))
    except Problem as problem:
        return _token_page("invite.html", entrance, knock, problem)
    where, browser = _way(entrance, knock, invite_id=invite_id)
    answer: Response = render.page("onwards.html", {"where": where, "provider": _button(entrance)})
    entrance.sessions.set_cookie(answer, _cookie(entrance), browser, 600)
    return answer


def _to_provider(entrance: Entrance, knock: _Knock, present: SignedIn | None) -> Response:
    _federation(entrance)
    entrance.visitors.count(knock.request)
    where, browser = _way(entrance, knock, None if present is None else present.session.person.id)
    answer = _go(where)
    entrance.sessions.set_cookie(answer, _cookie(entrance), browser, 600)
    return answer


def _way(entrance: Entrance, knock: _Knock, again: Id | None = None, *, invite_id: Id | None = None) -> tuple[str, str]:
    """The provider's address for a new visit, and the secret of the browser that makes it."""
    federation = _federation(entrance)
    state, browser = entrance.sessions.sign_in.set_out(knock.next, again, invite_id)
    try:
        where = federation.provider.start(state, browser, federation.callback, again=again is not None)
    except ProviderError:
        raise Problem(502, Code.UPSTREAM_UNREACHABLE, "The provider cannot be asked at the moment.") from None
    return where, browser


def _federation(entrance: Entrance) -> Federation:
    if entrance.federation is None:
        raise Problem(404, Code.UNKNOWN_URL, "This deployment has no provider to sign in with.")
    return entrance.federation


def _cookie(entrance: Entrance) -> str:
    return "__Host-keepless-oidc" if entrance.sessions.secure else "keepless-oidc"


ROUTES: Final[tuple[tuple[str, str, Handler], ...]] = (
    ("GET", "/sign-in", sign_in_page),
    ("POST", "/sign-in", sign_in),
    ("GET", "/sign-in/link", link_page),
    ("POST", "/sign-in/link", use_link),
    ("GET", "/sign-in/invite", invite_page),
    ("POST", "/sign-in/invite", accept_invite),
    ("GET", "/sign-in/again", again_page),
    ("POST", "/sign-in/again", again),
    ("GET", "/sign-in/oidc", to_provider),
    ("GET", "/sign-in/oidc/again", to_provider_again),
    ("POST", "/sign-in/oidc/invite", to_provider_invited),
    ("GET", "/sign-in/oidc/callback", from_provider),
    ("POST", "/sign-out", sign_out),
    ("POST", "/sign-out/everywhere", sign_out_everywhere),
)


def federation_of(config: OidcConfig | None, environ: Mapping[str, str], provider_of: ProviderOf) -> Federation | None:
    """What the operator configured. Raises `ConfigError` when the secret is not there."""
    if config is None:
        return None
    secret = environ.get(config.client_secret_env)
    if not secret:
        raise ConfigError("oidc.client_secret_env names a variable that is not set")
    if any(one.role == "operator" and one.organization is not None for one in config.groups):
        raise ConfigError("an operator belongs to no organization: leave organization out in [[oidc.groups]]")
    grants = [
        (one.group, Role(one.role), None if one.organization is None else trusted(one.organization))
        for one in config.groups
    ]
    callback = config.base_url + "/sign-in/oidc/callback"
    return Federation(provider=provider_of(config, secret), callback=callback, grants=grants)


def routes(entrance: Entrance) -> list[BaseRoute]:
    """The routes of the table."""
    paths: dict[str, dict[str, Handler]] = {}
    for method, path, handler in ROUTES:
        paths.setdefault(path, {})[method] = handler

    def page(handlers: dict[str, Handler]) -> Methods[Handler]:
        return Methods(handlers, partial(_answer, entrance), _FORM_BYTES)

    return [Route(path, page(found), include_in_schema=False) for path, found in paths.items()]


def _answer(entrance: Entrance, handler: Handler | None, request: Request, raw: bytes | None) -> Response:
    try:
        with stores_may_fail():
            if handler is None:
                raise not_found()
            typed = pairs(raw, _FORM_BYTES, _FIELDS)
            return handler(entrance, _Knock(request, typed, entrance.sessions.present(request)))
    except Problem as problem:
        values = {"problem": problem, "request_id": str(request.scope.get(problems.REQUEST_ID, "")), "visit": None}
        return _with_headers(render.page("alone.html", values, problem.status), problem)


# --- answers ---------------------------------------------------------------------------------------------------------


def _form(entrance: Entrance, knock: _Knock, problem: Problem | None = None) -> Response:
    values = {"problem": problem, "next": knock.next, "provider": _button(entrance)}
    return _with_headers(render.page("sign_in.html", values, 200 if problem is None else problem.status), problem)


def _token_page(template: str, entrance: Entrance, knock: _Knock, problem: Problem | None = None) -> Response:
    token = knock.typed("token") or knock.request.query_params.get("token", "")
    typed = {"token": token[:80], "name": knock.typed("name")[:200]}
    values = {"problem": problem, "provider": _button(entrance), **typed}
    return _with_headers(render.page(template, values, 200 if problem is None else problem.status), problem)


def _again(entrance: Entrance, knock: _Knock, problem: Problem | None = None) -> Response:
    present = knock.present
    values = {
        "problem": problem,
        "next": knock.next,
        "provider": _button(entrance),
        "csrf": "" if present is None else present.csrf,
        "email": "" if present is None else present.session.person.email,
        "has_password": present is not None and present.session.person.password is not None,
    }
    return _with_headers(render.page("again.html", values, 200 if problem is None else problem.status), problem)


def _button(entrance: Entrance) -> str | None:
    return None if entrance.federation is None else entrance.federation.provider.name


def _with_headers(answer: Response, problem: Problem | None) -> Response:
    if problem is not None:
        answer.headers.update(problem.headers)
    return answer


def _own_form(knock: _Knock) -> None:
    """What is asked of a form of who is signed in. Raises `Problem` 403."""
    check_origin(knock.request)
    if knock.present is not None:
        known = Visitor(knock.present.session.principal, "", knock.present.csrf)
        check_token(known, knock.typed("csrf"))


def _in(entrance: Entrance, opened: Opened, path: str) -> Response:
    answer = _go("/platform" if opened.person.organization_id is None and path == "/" else path)
    entrance.sessions.begin(answer, opened)
    return answer


def _out(entrance: Entrance) -> Response:
    answer = _go("/sign-in")
    entrance.sessions.end(answer)
    return answer


def _to_sign_in(knock: _Knock) -> Response:
    return _go("/sign-in" + ("?" + urlencode({"next": knock.next}) if knock.next != "/" else ""))


def _go(path: str) -> Response:
    return RedirectResponse(path, 303, headers={"cache-control": "no-store"})
