"""What `/openapi.json` says of batches: by hand, as of every route that is asked with an API key."""

from typing import Any, Final

from keepless.batches.values import BatchEndpoint, BatchState

__all__ = ["BATCH_PATHS", "BATCH_SCHEMAS"]

_SECURITY: Final[list[dict[str, list[str]]]] = [{"api": []}]
_ERROR: Final = {
    "description": "An error; `code` says which.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}
_ID: Final = {
    "name": "batch_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "minLength": 1, "pattern": "^[A-Za-z0-9_-]+$"},
}
_INSTANT: Final = {"type": ["integer", "null"]}
_TEXT: Final = {"type": ["string", "null"]}


def _answers(name: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    return {"200": {"description": "Done.", "content": content}, "4XX": _ERROR, "503": _ERROR}


def _query(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema}


def _operation(operation_id: str, summary: str, answer: str, **more: Any) -> dict[str, Any]:
    return {
        "operationId": operation_id,
        "summary": summary,
        "tags": ["batches"],
        "security": _SECURITY,
        **more,
        "responses": _answers(answer),
    }


BATCH_PATHS: Final[dict[str, dict[str, Any]]] = {
    "/v1/batches": {
        "post": _operation(
            "create_batch",
            "Answer every request of a file within a day to a week.",
            "Batch",
            requestBody={
                "required": True,
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/BatchRequest"}}},
            },
        ),
        "get": _operation(
            "list_batches",
            "The project's batches, newest first.",
            "BatchList",
            parameters=[
                _query("limit", {"type": "integer", "minimum": 1, "maximum": 100}),
                _query("after", {"type": "string"}),
                _query("cursor", {"type": "string"}),
                _query("id", {"type": "string"}),
            ],
        ),
    },
    "/v1/batches/{batch_id}": {
        "get": _operation("retrieve_batch", "One batch, with how far it is.", "Batch", parameters=[_ID])
    },
    "/v1/batches/{batch_id}/cancel": {
        "post": _operation("cancel_batch", "Let a batch end with what is done.", "Batch", parameters=[_ID])
    },
}

BATCH_SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    "BatchRequest": {
        "type": "object",
        "required": ["input_file_id", "endpoint", "completion_window"],
        "additionalProperties": False,
        "properties": {
            "input_file_id": {"type": "string"},
            "endpoint": {"enum": [endpoint.value for endpoint in BatchEndpoint]},
            "completion_window": {"type": "string", "pattern": "^([1-9][0-9]{0,2}h|[1-7]d)$"},
            "metadata": {
                "type": ["object", "null"],
                "maxProperties": 16,
                "propertyNames": {"maxLength": 64},
                "additionalProperties": {"type": "string", "maxLength": 512},
            },
            "output_expires_after": {
                "type": ["object", "null"],
                "required": ["anchor", "seconds"],
                "additionalProperties": False,
                "properties": {
                    "anchor": {"const": "created_at"},
                    "seconds": {"type": "integer", "minimum": 3600, "maximum": 2_592_000},
                },
            },
        },
    },
    "Batch": {
        "type": "object",
        "required": ["id", "object", "endpoint", "input_file_id", "completion_window", "status", "request_counts"],
        "properties": {
            "id": {"type": "string"},
            "object": {"const": "batch"},
            "endpoint": {"enum": [endpoint.value for endpoint in BatchEndpoint]},
            "errors": {"type": ["object", "null"]},
            "input_file_id": {"type": "string"},
            "completion_window": {"type": "string"},
            "status": {"enum": [state.value for state in BatchState]},
            "output_file_id": _TEXT,
            "error_file_id": _TEXT,
            "created_at": {"type": "integer"},
            "expires_at": {"type": "integer"},
            **{
                f"{state.value}_at": _INSTANT
                for state in BatchState
                if state not in (BatchState.VALIDATING, BatchState.EXPIRED)
            },
            "expired_at": _INSTANT,
            "request_counts": {
                "type": "object",
                "required": ["total", "completed", "failed"],
                "properties": {name: {"type": "integer"} for name in ("total", "completed", "failed")},
            },
            "usage": {
                "type": ["object", "null"],
                "description": "Tokens of the answers in the output file, as their engines counted them; at the end.",
                "properties": {name: {"type": "integer"} for name in ("input_tokens", "output_tokens", "total_tokens")},
            },
            "metadata": {"type": ["object", "null"]},
            "progress": {
                "type": "object",
                "description": "How far it is (an extension).",
                "properties": {
                    "percent": {"type": "number"},
                    "done": {"type": "integer"},
                    "total": {"type": "integer"},
                    "eta_seconds": {"type": ["integer", "null"]},
                    "ended": {"type": "boolean"},
                },
            },
        },
    },
    "BatchList": {
        "type": "object",
        "required": ["object", "data", "has_more"],
        "properties": {
            "object": {"const": "list"},
            "data": {"type": "array", "items": {"$ref": "#/components/schemas/Batch"}},
            "first_id": _TEXT,
            "last_id": _TEXT,
            "has_more": {"type": "boolean"},
            "paging": {"type": "object", "properties": {"next_cursor": _TEXT}},
        },
    },
}
