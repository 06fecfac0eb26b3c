"""`/openapi.json` tells the truth: every row of the table is in it, and what is answered fits what it says."""

import json
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from keepless.admin.matrix import ENDPOINTS
from keepless.admin.openapi import document
from keepless.gateway.endpoints import PATHS
from tests.support.platform import Platform


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(document())
    return found


def validator(told: dict[str, Any], schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator({**schema, "components": told["components"]})


def test_every_route_is_described_with_permission_and_parameters(told: dict[str, Any]) -> None:
    for endpoint in ENDPOINTS:
        operation = told["paths"][f"/v1{endpoint.path}"][endpoint.method.lower()]
        assert endpoint.permission.value in operation["description"]
        assert operation["summary"].endswith(".")
        in_path = [p["name"] for p in operation["parameters"] if p["in"] == "path"]
        assert in_path == re.findall(r"\{(\w+)\}", endpoint.path)
    ids = [o["operationId"] for item in told["paths"].values() for o in item.values() if "operationId" in o]
    assert len(set(ids)) == len(ids)


def test_every_reference_resolves(told: dict[str, Any]) -> None:
    for name in set(re.findall(r'"#/components/schemas/([^"]+)"', document().decode())):
        assert name in told["components"]["schemas"], name
    for schema in told["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_inference_and_plain_routes_are_described_too(told: dict[str, Any]) -> None:
    for path in ("/v1/models", "/v1/models/{model}", "/healthz", "/readyz", "/metrics"):
        assert path in told["paths"]
    for path in PATHS.values():
        assert "post" in told["paths"][f"/v1{path}"], path
    assert told["openapi"].startswith("3.1")


@pytest.mark.parametrize(
    "path",
    [
        "/organization/data_controls",
        "/organization/data_retention",
        "/organization/retained_objects",
        "/organization/receipts",
        "/organization/projects",
        "/organization/admin_api_keys",
        "/organization/users",
        "/organization/legal_holds",
        "/organization/abuse_cases",
        "/organization/limits",
    ],
)
def test_answers_fit_their_schema(here: Platform, told: dict[str, Any], path: str) -> None:
    here.put()
    here.json("DELETE", f"/organization/retained_objects/{here.put().id}")
    schema = told["paths"][f"/v1{path}"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    validator(told, schema).validate(here.json("GET", path))


def test_errors_fit_their_schema(here: Platform, told: dict[str, Any]) -> None:
    schema = told["components"]["schemas"]["Error"]
    for answer in (here.ask("GET", "/organization/projects", key=None), here.ask("GET", "/organization/nothing")):
        validator(told, schema).validate(json.loads(answer.body))


def test_a_receipt_file_fits_its_schema(here: Platform, told: dict[str, Any]) -> None:
    here.json("DELETE", f"/organization/retained_objects/{here.put().id}")
    receipt = here.json("GET", "/organization/receipts")["data"][0]["id"]
    item = told["paths"]["/v1/organization/receipts/{id}"]["get"]
    schema = item["responses"]["200"]["content"]["application/json"]["schema"]
    validator(told, schema).validate(here.json("GET", f"/organization/receipts/{receipt}"))


def test_the_document_is_served(here: Platform) -> None:
    from tests.support.asgi import call

    answer = call(here.app, "GET", "/openapi.json")
    assert (answer.status, answer.body) == (200, document())


def test_no_summary_speaks_of_python() -> None:
    described = json.loads(document())["paths"].values()
    summaries = [operation["summary"] for path in described for operation in path.values() if "summary" in operation]
    assert len(summaries) > 30
    assert not [summary for summary in summaries if "Raises" in summary]
