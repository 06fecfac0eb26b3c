"""`/openapi.json` (OpenAPI 3.1): made from the route table and the structs it names, so that it cannot differ from
them.

Only what is not a row of that table is written by hand: the inference routes (`openapi_inference`), health, metrics
and the log. Every path is also served under `/openai/v1`.
"""

import functools
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from keepless import __version__
from keepless.admin.asks import NoBody
from keepless.admin.endpoint import Endpoint
from keepless.admin.matrix import ENDPOINTS
from keepless.admin.openapi_batches import BATCH_PATHS, BATCH_SCHEMAS
from keepless.admin.openapi_inference import INFERENCE_PATHS, INFERENCE_SCHEMAS
from keepless.admin.openapi_tunings import MODEL_DELETION, TUNING_PATHS, TUNING_SCHEMAS
from keepless.admin.shapes import Error

__all__ = ["document"]

_REF: Final = "#/components/schemas/{name}"
_PARAMETER: Final = re.compile(r"\{(\w+)\}")
_TEXT: Final = {"text/plain": {"schema": {"type": "string"}}}
_OBJECT: Final = {"application/json": {"schema": {"type": "object"}}}
_ERROR: Final = {
    "description": "An error; `code` says which.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}
_ID: Final = {"type": "string", "minLength": 1, "pattern": "^[A-Za-z0-9_-]+$"}


@functools.cache
def document() -> bytes:
    """The document as JSON."""
    schemas = _Schemas()
    by_hand = {**INFERENCE_PATHS, **BATCH_PATHS, **TUNING_PATHS}
    paths: dict[str, dict[str, Any]] = {path: dict(item) for path, item in by_hand.items()}
    paths["/v1/models/{model}"]["delete"] = MODEL_DELETION
    for endpoint in ENDPOINTS:
        paths.setdefault(f"/v1{endpoint.path}", {})[endpoint.method.lower()] = _operation(endpoint, schemas)
    paths.update(_plain_paths())
    text = msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Keepless",
                "version": __version__,
                "description": "OpenAI's and Groq's API, with the data controls as code. "
                "Every path under /v1 is served under /openai/v1 too.",
            },
            "servers": [{"url": "/"}],
            "paths": paths,
            "components": {
                "schemas": {**schemas.components, **INFERENCE_SCHEMAS, **BATCH_SCHEMAS, **TUNING_SCHEMAS},
                "securitySchemes": {
                    "admin": {"type": "http", "scheme": "bearer", "description": "An admin or operator key."},
                    "api": {"type": "http", "scheme": "bearer", "description": "An API key."},
                },
            },
        }
    )
    for name in schemas.components:
        if "." in name:  # two classes of one name: told apart by their module's last word instead of its whole path
            module, _, last = name.rpartition(".")
            text = text.replace(name.encode(), f"{module.rpartition('.')[2].capitalize()}{last}".encode())
    return text


class _Schemas:
    """The JSON schema of every type that the table names, made in one go so that references agree."""

    def __init__(self) -> None:
        named: dict[str, Any] = {"Error": Error}
        for endpoint in ENDPOINTS:
            for kind in (*_options(endpoint.answer), endpoint.body):
                named[str(kind)] = kind
            for field in msgspec.structs.fields(endpoint.query):
                named[str(field.type)] = field.type
        made, components = msgspec.json.schema_components(list(named.values()), ref_template=_REF)
        self.components: Final = components
        self._of: Final = dict(zip(named, made, strict=True))

    def of(self, kind: Any) -> dict[str, Any]:
        """The schema of one type, or of one of several."""
        options = [dict(self._of[str(one)]) for one in _options(kind)]
        return options[0] if len(options) == 1 else {"anyOf": options}


def _options(kind: Any) -> tuple[Any, ...]:
    """The structs that an answer is one of; a member of a union that msgspec cannot tell apart by itself."""
    several = typing.get_args(kind) if isinstance(kind, types.UnionType) else ()
    structs = [one for one in several if isinstance(one, type) and issubclass(one, msgspec.Struct)]
    return several if structs and len(structs) == len(several) else (kind,)


def _operation(endpoint: Endpoint, schemas: _Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": endpoint.handler.__name__,
        "summary": endpoint.summary,
        "description": f"Permission: `{endpoint.permission.value}`.",
        "tags": [endpoint.path.split("/")[1]],
        "security": [{"admin": []}],
        "parameters": [
            *({"name": name, "in": "path", "required": True, "schema": _ID} for name in _names(endpoint.path)),
            *(_parameter(field, schemas) for field in msgspec.structs.fields(endpoint.query)),
        ],
        "responses": {
            "200": {"description": "Done.", "content": _content(endpoint, schemas)},
            "4XX": _ERROR,
            "503": _ERROR,
        },
    }
    if endpoint.body is not NoBody:
        fields = msgspec.structs.fields(endpoint.body)
        operation["requestBody"] = {
            "required": any(field.required for field in fields),
            "content": {"application/json": {"schema": schemas.of(endpoint.body)}},
        }
    return operation


def _content(endpoint: Endpoint, schemas: _Schemas) -> dict[str, Any]:
    if endpoint.lines:
        return {"application/jsonl": {"schema": {"type": "string"}, "x-line": schemas.of(endpoint.answer)}}
    return {"application/json": {"schema": schemas.of(endpoint.answer)}}


def _names(path: str) -> list[str]:
    return _PARAMETER.findall(path)


def _parameter(field: msgspec.structs.FieldInfo, schemas: _Schemas) -> dict[str, Any]:
    schema = schemas.of(field.type)
    if "anyOf" in schema:  # a query string cannot say null: it leaves the parameter out
        options = [option for option in schema["anyOf"] if option != {"type": "null"}]
        schema = options[0] if len(options) == 1 else {"anyOf": options}
    return {"name": field.encode_name, "in": "query", "required": field.required, "schema": schema}


def _plain_paths() -> Mapping[str, Any]:
    log = {"type": "string", "description": "C2SP tlog-tiles"}
    return {
        "/healthz": {"get": _plain("Alive.", _OBJECT)},
        "/readyz": {"get": _plain("Able to serve and to keep every promise.", _OBJECT, "503")},
        "/metrics": {
            "get": {**_plain("Numbers for Prometheus.", _TEXT, "4XX", "503"), "security": [{"admin": []}, {}]}
        },
        "/openapi.json": {"get": _plain("This document.", _OBJECT)},
        "/log/checkpoint": {
            "get": _plain("The log's signed head (C2SP tlog-checkpoint).", {"text/plain": {"schema": log}}, "503")
        },
        "/log/key": {
            "get": _plain("The log's public key (C2SP signed-note verifier key).", {"text/plain": {"schema": log}})
        },
        "/log/tile/{path}": {
            "get": {
                **_plain("Hashes of the log (C2SP tlog-tiles).", {"application/octet-stream": {"schema": {}}}, "4XX"),
                "parameters": [{"name": "path", "in": "path", "required": True, "schema": _ID}],
            }
        },
    }


def _plain(summary: str, content: Mapping[str, Any], *errors: str) -> dict[str, Any]:
    responses: dict[str, Any] = {"200": {"description": "Done.", "content": content}}
    for status in errors:
        responses[status] = _ERROR
    return {"summary": summary, "responses": responses}
