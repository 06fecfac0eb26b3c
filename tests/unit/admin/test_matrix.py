"""Who may do what: the whole product of routes and callers, against a table written down a second time."""

import re
from typing import Final

import pytest

from keepless.accounts.roles import Role
from keepless.admin.endpoint import Endpoint
from keepless.admin.matrix import ENDPOINTS
from keepless.ids import Prefix, mint
from tests.support.platform import Platform

OWN, DEV, READ, AUD, OPER = Role.OWNER, Role.DEVELOPER, Role.READER, Role.AUDITOR, Role.OPERATOR
ANY_MEMBER: Final = {OWN, DEV, READ, AUD}
NO_AUDITOR: Final = {OWN, DEV, READ}
EXPECTED: Final[dict[str, set[Role]]] = {
    "GET /organization/data_controls": ANY_MEMBER,
    "POST /organization/data_controls": {OWN},
    "POST /organization/data_controls/preview": ANY_MEMBER,
    "GET /organization/data_retention": ANY_MEMBER,
    "GET /organization/transfers": ANY_MEMBER,
    "POST /organization/data_retention": {OWN},
    "GET /organization/projects/{project_id}/data_controls": ANY_MEMBER,
    "POST /organization/projects/{project_id}/data_controls": {OWN},
    "POST /organization/projects/{project_id}/data_controls/preview": ANY_MEMBER,
    "GET /organization/projects/{project_id}/data_retention": ANY_MEMBER,
    "POST /organization/projects/{project_id}/data_retention": {OWN},
    "GET /organization/retained_objects": ANY_MEMBER,
    "GET /organization/retained_objects/{id}": ANY_MEMBER,
    "DELETE /organization/retained_objects/{id}": {OWN},
    "GET /organization/captures": {OWN, DEV, READ, AUD, OPER},
    "GET /organization/captures/{id}": {OWN, DEV, READ, AUD, OPER},
    "DELETE /organization/captures/{id}": {OWN},
    "GET /organization/captures/{id}/open_requests": {OWN, DEV, READ, AUD, OPER},
    "POST /organization/captures/{id}/open_requests": {OWN, OPER},
    "GET /organization/captures/{id}/content": {OWN, OPER},
    "GET /organization/open_requests": {OWN, DEV, READ, AUD, OPER},
    "GET /organization/open_requests/{id}": {OWN, DEV, READ, AUD, OPER},
    "POST /organization/open_requests/{id}/approve": {OWN, OPER},
    "POST /organization/open_requests/{id}/refuse": {OWN, OPER},
    "POST /organization/open_requests/{id}/end": {OWN, OPER},
    "GET /organization/purges/{id}": ANY_MEMBER,
    "GET /organization/receipts": ANY_MEMBER,
    "GET /organization/receipts/{id}": ANY_MEMBER,
    "GET /organization/audit_logs": {OWN, DEV, READ, AUD, OPER},
    "GET /organization/audit_logs/export": {OWN, DEV, READ, AUD, OPER},
    "DELETE /organization/audit_logs/{id}": {OPER},
    "DELETE /organization/legal_holds/{id}/reference": {OPER},
    "DELETE /organization/abuse_cases/{id}/reference": {OPER},
    "DELETE /organization/open_requests/{id}/reference": {OPER},
    "GET /organization/legal_holds": {OWN, DEV, READ, AUD, OPER},
    "POST /organization/legal_holds": {OPER},
    "GET /organization/legal_holds/{id}": {OWN, DEV, READ, AUD, OPER},
    "DELETE /organization/legal_holds/{id}": {OPER},
    "GET /organization/abuse_cases": {OWN, DEV, READ, AUD, OPER},
    "GET /organization/abuse_cases/{id}": {OWN, DEV, READ, AUD, OPER},
    "POST /organization/abuse_cases/{id}/confirm": {OPER},
    "POST /organization/abuse_cases/{id}/extend": {OPER},
    "POST /organization/abuse_cases/{id}/close": {OPER},
    **{
        f"GET /organization/{name}": NO_AUDITOR
        for name in (
            "costs",
            "usage/completions",
            "usage/embeddings",
            "usage/audio_speeches",
            "usage/audio_transcriptions",
            "usage/images",
            "usage/moderations",
            "usage/vector_stores",
            "usage/code_interpreter_sessions",
            "usage/file_search_calls",
            "usage/web_search_calls",
            "usage/decisions",
        )
    },
    "GET /organization/explain/{id}": NO_AUDITOR,
    "GET /organization/limits": ANY_MEMBER,
    "POST /organization/limits": {OPER},
    "GET /organization/projects": ANY_MEMBER,
    "POST /organization/projects": {OWN},
    "GET /organization/projects/{project_id}": ANY_MEMBER,
    "POST /organization/projects/{project_id}": {OWN},
    "POST /organization/projects/{project_id}/archive": {OWN},
    "GET /organization/projects/{project_id}/limits": ANY_MEMBER,
    "POST /organization/projects/{project_id}/limits": {OWN},
    "GET /organization/projects/{project_id}/rate_limits": ANY_MEMBER,
    "POST /organization/projects/{project_id}/rate_limits/{rate_limit_id}": {OWN},
    "GET /organization/projects/{project_id}/api_keys": NO_AUDITOR,
    "POST /organization/projects/{project_id}/api_keys": {OWN, DEV},
    "GET /organization/projects/{project_id}/api_keys/{key_id}": NO_AUDITOR,
    "POST /organization/projects/{project_id}/api_keys/{key_id}": {OWN, DEV},
    "DELETE /organization/projects/{project_id}/api_keys/{key_id}": {OWN, DEV},
    "GET /organization/projects/{project_id}/service_accounts": NO_AUDITOR,
    "POST /organization/projects/{project_id}/service_accounts": {OWN, DEV},
    "GET /organization/projects/{project_id}/service_accounts/{key_id}": NO_AUDITOR,
    "POST /organization/projects/{project_id}/service_accounts/{key_id}": {OWN, DEV},
    "DELETE /organization/projects/{project_id}/service_accounts/{key_id}": {OWN, DEV},
    "GET /organization/admin_api_keys": {OWN},
    "POST /organization/admin_api_keys": {OWN},
    "GET /organization/admin_api_keys/{key_id}": {OWN},
    "DELETE /organization/admin_api_keys/{key_id}": {OWN},
    "GET /organization/users": {OWN},
    "POST /organization/users": {OWN},
    "GET /organization/users/{user_id}": {OWN},
    "POST /organization/users/{user_id}": {OWN},
    "POST /organization/users/{user_id}/sign_in_link": {OWN},
    "DELETE /organization/users/{user_id}": {OWN},
    "GET /organization/projects/{project_id}/users": {OWN},
    "GET /organization/projects/{project_id}/users/{user_id}": {OWN},
    "GET /organization/invites": {OWN},
    "POST /organization/invites": {OWN},
    "GET /organization/invites/{invite_id}": {OWN},
    "DELETE /organization/invites/{invite_id}": {OWN},
    "GET /webhook_event_types": NO_AUDITOR,
    "GET /webhook_endpoints": NO_AUDITOR,
    "POST /webhook_endpoints": {OWN},
    "GET /webhook_endpoints/{id}": NO_AUDITOR,
    "POST /webhook_endpoints/{id}": {OWN},
    "DELETE /webhook_endpoints/{id}": {OWN},
    "POST /webhook_endpoints/{id}/rotate_secret": {OWN},
    "POST /webhook_endpoints/{id}/test": {OWN},
    "GET /organizations": {OPER},
    "POST /organizations": {OPER},
    "GET /organizations/{organization_id}": {OPER},
    "DELETE /organizations/{organization_id}": {OPER},
}
_PREFIX: Final = {
    "project_id": Prefix.PROJECT,
    "user_id": Prefix.MEMBER,
    "invite_id": Prefix.INVITE,
    "organization_id": Prefix.ORGANIZATION,
    "key_id": Prefix.API_KEY,
    "rate_limit_id": Prefix.OBJECT,
    "id": Prefix.OBJECT,
}


def name(endpoint: Endpoint) -> str:
    return f"{endpoint.method} {endpoint.path}"


def filled(path: str) -> str:
    """The path with ids that nobody has."""
    return re.sub(r"\{(\w+)\}", lambda found: mint(_PREFIX[found[1]]), path)


def test_every_route_is_written_down_here_once() -> None:
    assert sorted(name(endpoint) for endpoint in ENDPOINTS) == sorted(EXPECTED)
    assert len({endpoint.handler.__name__ for endpoint in ENDPOINTS}) == len(ENDPOINTS)


def test_every_pair_of_route_and_caller(here: Platform) -> None:
    keys = {Role.OWNER: here.owner_key, Role.OPERATOR: here.operator_key}
    for role in (Role.DEVELOPER, Role.READER, Role.AUDITOR):
        made = here.json("POST", "/organization/admin_api_keys", {"name": "x", "role": role.value})
        keys[role] = made["value"]
    for endpoint in ENDPOINTS:
        for role, key in keys.items():
            # A body that is not JSON: whoever may call is told 400 (or 404), and nothing is changed.
            answer = here.ask(endpoint.method, filled(endpoint.path), key=key, raw=b"{")
            if role in EXPECTED[name(endpoint)]:
                assert answer.status == 400, (name(endpoint), role, answer.body)
            else:
                assert answer.status == 403, (name(endpoint), role, answer.body)
                assert endpoint.permission.value.encode() in answer.body


@pytest.mark.parametrize(
    ("key", "status", "code"),
    [
        (None, 401, "invalid_api_key"),
        ("ak-keepless-unknown", 401, "invalid_api_key"),
        ("api", 403, "insufficient_permissions"),
    ],
)
def test_no_route_opens_without_an_admin_key(here: Platform, key: str | None, status: int, code: str) -> None:
    for endpoint in ENDPOINTS:
        answer = here.ask(endpoint.method, filled(endpoint.path), {}, key=key)
        assert (answer.status, code.encode() in answer.body) == (status, True), name(endpoint)
        assert b"ak-keepless-unknown" not in answer.body


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "Basic abc", "ak-keepless-x", "Bearer " + "x" * 600])
def test_a_header_that_is_no_bearer_is_401(here: Platform, header: str) -> None:
    from tests.support.asgi import call

    answer = call(here.app, "GET", "/v1/organization/projects", {"authorization": header})
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"
