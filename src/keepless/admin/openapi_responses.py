"""What `/openapi.json` says of /responses: the routes, by hand, as for all inference (openapi_inference)."""

from typing import Any, Final

__all__ = ["RESPONSE_PATHS", "RESPONSE_SCHEMAS"]

_SECURITY: Final[list[dict[str, list[str]]]] = [{"api": []}]
_ERROR: Final = {
    "description": "An error; `code` says which.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}
_ID: Final = {
    "name": "response_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "minLength": 1, "maxLength": 96, "pattern": "^[A-Za-z0-9_-]+$"},
}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _post(operation_id: str, summary: str, asked: str, content: dict[str, Any]) -> dict[str, Any]:
    return {
        "post": {
            "operationId": operation_id,
            "summary": summary,
            "tags": ["responses"],
            "security": _SECURITY,
            "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(asked)}}},
            "responses": {"200": {"description": "Done.", "content": content}, "4XX": _ERROR, "5XX": _ERROR},
        }
    }


def _never(operation_id: str, summary: str) -> dict[str, Any]:
    return {
        "operationId": operation_id,
        "summary": summary,
        "tags": ["responses"],
        "security": _SECURITY,
        "parameters": [_ID],
        "responses": {"4XX": _ERROR, "5XX": _ERROR},
    }


RESPONSE_PATHS: Final[dict[str, dict[str, Any]]] = {
    "/v1/responses": _post(
        "create_response",
        "Answer an input, whole or as events; stateless, nothing of it is kept unless the data controls say so.",
        "ResponseRequest",
        {
            "application/json": {"schema": _ref("Response")},
            "text/event-stream": {"schema": {"type": "string"}},
        },
    ),
    "/v1/responses/input_tokens": _post(
        "count_input_tokens",
        "How many tokens an input is, counted by the model's own engine where it can.",
        "InputTokensRequest",
        {"application/json": {"schema": _ref("InputTokens")}},
    ),
    "/v1/responses/{response_id}": {
        "get": _never("retrieve_response", "Always 404: responses are not stored."),
        "delete": _never("delete_response", "Always 404: responses are not stored."),
    },
    "/v1/responses/{response_id}/input_items": {
        "get": _never("list_input_items", "Always 404: responses are not stored.")
    },
    "/v1/responses/{response_id}/cancel": {
        "post": _never("cancel_response", "Always 404: responses are not stored, and none runs in the background.")
    },
}

_INPUT: Final = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "minItems": 1, "items": _ref("ChatMessage")},
    ]
}

RESPONSE_SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    "ResponseRequest": {
        "type": "object",
        "required": ["model", "input"],
        "properties": {
            "model": {"type": "string", "minLength": 1, "maxLength": 96},
            "input": _INPUT,
            "instructions": {"type": "string"},
            "stream": {"type": "boolean"},
            "max_output_tokens": {"type": "integer", "minimum": 1},
            "temperature": {"type": "number", "minimum": 0, "maximum": 2},
            "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            "metadata": {
                "type": "object",
                "maxProperties": 16,
                "additionalProperties": {"type": "string", "maxLength": 512},
                "description": "Echoed in the answer, and not kept.",
            },
            "store": {"const": False, "description": "true is refused: nothing is stored on request."},
            "previous_response_id": {"type": "null", "description": "Refused: no response is kept."},
            "background": {"const": False, "description": "true is refused: it would have to be kept."},
        },
    },
    "Response": {
        "type": "object",
        "required": ["id", "object", "created_at", "model", "output", "status"],
        "properties": {
            "id": {"type": "string"},
            "object": {"const": "response"},
            "created_at": {"type": "number"},
            "model": {"type": "string"},
            "status": {"enum": ["completed", "incomplete", "failed", "in_progress"]},
            "store": {"const": False},
            "output": {"type": "array", "items": {"type": "object"}},
            "usage": {"type": ["object", "null"]},
        },
    },
    "InputTokensRequest": {
        "type": "object",
        "required": ["model", "input"],
        "properties": {
            "model": {"type": "string", "minLength": 1, "maxLength": 96},
            "input": _INPUT,
            "instructions": {"type": "string"},
        },
    },
    "InputTokens": {
        "type": "object",
        "required": ["object", "input_tokens"],
        "properties": {"object": {"const": "response.input_tokens"}, "input_tokens": {"type": "integer"}},
    },
}
