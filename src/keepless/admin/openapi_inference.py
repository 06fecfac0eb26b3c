"""What `/openapi.json` says of the inference routes: written by hand, because those do not go through the route table.

Only what every model takes; the full list of parameters, and which model does what, is `/v1/models/{id}`'s
`capabilities`.
"""

from typing import Any, Final

from keepless.admin.openapi_audio import AUDIO_PATHS, AUDIO_SCHEMAS
from keepless.admin.openapi_files import FILE_PATHS, FILE_SCHEMAS
from keepless.admin.openapi_media import MEDIA_PATHS, MEDIA_SCHEMAS
from keepless.admin.openapi_responses import RESPONSE_PATHS, RESPONSE_SCHEMAS

__all__ = ["INFERENCE_PATHS", "INFERENCE_SCHEMAS"]

_SECURITY: Final[list[dict[str, list[str]]]] = [{"api": []}]
_ERROR: Final = {
    "description": "An error; `code` says which.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _responses(content: dict[str, Any]) -> dict[str, Any]:
    return {"200": {"description": "Done.", "content": content}, "4XX": _ERROR, "5XX": _ERROR}


INFERENCE_PATHS: Final[dict[str, dict[str, Any]]] = {
    "/v1/chat/completions": {
        "post": {
            "operationId": "create_chat_completion",
            "summary": "Answer a conversation; nothing of it is kept unless the data controls say so.",
            "tags": ["chat"],
            "security": _SECURITY,
            "requestBody": {"required": True, "content": _json("ChatRequest")},
            "responses": _responses({**_json("ChatCompletion"), "text/event-stream": {"schema": {"type": "string"}}}),
        }
    },
    **RESPONSE_PATHS,
    **AUDIO_PATHS,
    **FILE_PATHS,
    **MEDIA_PATHS,
    "/v1/models": {
        "get": {
            "operationId": "list_models",
            "summary": "The models, with the data retention in force for your key.",
            "tags": ["models"],
            "security": _SECURITY,
            "responses": _responses(_json("ModelList")),
        }
    },
    "/v1/models/{model}": {
        "get": {
            "operationId": "retrieve_model",
            "summary": "One model.",
            "tags": ["models"],
            "security": _SECURITY,
            "parameters": [
                {
                    "name": "model",
                    "in": "path",
                    "required": True,
                    "schema": {"type": "string", "minLength": 1, "maxLength": 96, "pattern": "^[A-Za-z0-9._:-]+$"},
                }
            ],
            "responses": _responses(_json("Model")),
        }
    },
}

INFERENCE_SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    "ChatMessage": {
        "type": "object",
        "required": ["role", "content"],
        "properties": {
            "role": {"enum": ["system", "user", "assistant"]},
            "content": {"type": "string", "minLength": 1},
        },
    },
    "ChatRequest": {
        "type": "object",
        "required": ["model", "messages"],
        "properties": {
            "model": {"type": "string", "minLength": 1, "maxLength": 96},
            "messages": {
                "type": "array",
                "minItems": 1,
                "items": {"$ref": "#/components/schemas/ChatMessage"},
            },
            "stream": {"type": "boolean"},
            "stream_options": {"type": "object", "properties": {"include_usage": {"type": "boolean"}}},
            "max_completion_tokens": {"type": "integer", "minimum": 1},
            "temperature": {"type": "number", "minimum": 0, "maximum": 2},
            "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            "seed": {"type": "integer"},
            "stop": {
                "anyOf": [
                    {"type": "string", "minLength": 1},
                    {"type": "array", "maxItems": 4, "items": {"type": "string", "minLength": 1}},
                ]
            },
            "store": {"const": False, "description": "true is refused: nothing is stored on request."},
        },
    },
    **RESPONSE_SCHEMAS,
    **AUDIO_SCHEMAS,
    **FILE_SCHEMAS,
    **MEDIA_SCHEMAS,
    "Usage": {
        "type": "object",
        "required": ["prompt_tokens", "completion_tokens", "total_tokens"],
        "properties": {
            "prompt_tokens": {"type": "integer"},
            "completion_tokens": {"type": "integer"},
            "total_tokens": {"type": "integer"},
        },
    },
    "ChatCompletion": {
        "type": "object",
        "required": ["id", "object", "created", "model", "choices"],
        "properties": {
            "id": {"type": "string"},
            "object": {"const": "chat.completion"},
            "created": {"type": "integer"},
            "model": {"type": "string"},
            "choices": {"type": "array", "items": {"type": "object"}},
            "usage": {"$ref": "#/components/schemas/Usage"},
        },
    },
    "Model": {
        "type": "object",
        "required": ["id", "object", "created", "owned_by"],
        "properties": {
            "id": {"type": "string"},
            "object": {"const": "model"},
            "created": {"type": "integer"},
            "owned_by": {"type": "string"},
            "active": {"type": "boolean"},
            "context_window": {"type": "integer"},
            "max_completion_tokens": {"type": "integer"},
            "capabilities": {"type": "array", "items": {"type": "string"}},
            "data_retention": {"type": "object"},
            "speech": {"type": "object", "description": "Of an embedded voice: voices, formats, sample rates."},
            "embeddings": {"type": "object", "description": "Of an embedded model: dimensions, most inputs."},
        },
    },
    "ModelList": {
        "type": "object",
        "required": ["object", "data"],
        "properties": {
            "object": {"const": "list"},
            "data": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}},
        },
    },
}
