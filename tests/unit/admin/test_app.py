"""The one way of every row: prefixes, methods, order of refusals."""

import json
import re
from pathlib import Path

import pytest
import sqlalchemy as sa

from keepless.admin.app import PREFIXES
from keepless.admin.matrix import ENDPOINTS
from keepless.admin.unserved import UNSERVED
from tests.support.asgi import call
from tests.support.platform import Platform


def headers(here: Platform) -> dict[str, str]:
    return {"authorization": f"Bearer {here.owner_key}"}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_both_prefixes_serve_the_same(here: Platform, prefix: str) -> None:
    answer = call(here.app, "GET", f"{prefix}/organization/projects", headers(here))
    assert json.loads(answer.body)["data"][0]["id"] == here.project_id
    assert call(here.app, "GET", f"{prefix}/organization/nothing", headers(here)).status == 404


def test_every_answer_is_stamped(here: Platform) -> None:
    for answer in (here.ask("GET", "/organization/projects"), here.ask("GET", "/organization/projects", key=None)):
        assert answer.headers["x-request-id"].startswith("req_")
        assert answer.headers["x-keepless-retention"] == "none"
        assert answer.headers["content-type"] == "application/json"


def test_head_is_get(here: Platform) -> None:
    assert call(here.app, "HEAD", "/v1/organization/projects", headers(here)).status == 200


def anonymous(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", path)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "DELETE", "TRACE"])
def test_other_methods_are_405_everywhere(here: Platform, method: str) -> None:
    served = {}
    for endpoint in ENDPOINTS:
        served.setdefault(endpoint.path, set()).add(endpoint.method)
    unserved = {(one, anonymous(path)) for one, path in UNSERVED}  # OpenAI's, which answer 404 with the reason
    for path, methods in served.items():
        if method in methods or (method, anonymous(path)) in unserved:
            continue
        answer = call(here.app, method, "/v1" + path.replace("{", "").replace("}", ""), headers(here))
        assert answer.status == 405, path
        assert methods <= set(answer.headers["allow"].split(", "))


def test_the_key_is_looked_at_before_anything_else(here: Platform) -> None:
    """Who has no key, or not the permission, learns nothing of bodies and ids."""
    for key, status in ((None, 401), ("api", 403)):
        answer = here.ask("POST", "/organization/data_controls?MARKER=1", key=key, raw=b"{")
        assert answer.status == status
        assert b"MARKER" not in answer.body


def test_a_large_body_is_not_read_to_its_end(here: Platform) -> None:
    answer = here.ask("POST", "/organization/projects", raw=b"x" * 1_000_000)
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (413, "request_too_large")


def test_nothing_is_written_beside_the_database(here: Platform, tmp_path: Path) -> None:
    before = {path.name for path in tmp_path.iterdir()}
    here.json("POST", "/organization/projects", {"name": "x"})
    assert {path.name for path in tmp_path.iterdir()} == before


def test_a_database_that_fails_is_503_without_its_text(here: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(*_: object, **__: object) -> None:
        raise sa.exc.OperationalError("SELECT MARKER", None, Exception("MARKER"))

    monkeypatch.setattr(type(here.services.organizations), "projects", locked)
    answer = here.ask("GET", "/organization/projects")
    assert (answer.status, answer.headers["retry-after"]) == (503, "2")
    assert b"MARKER" not in answer.body
