"""What `/openapi.json` says of embeddings and speech (see openapi_inference)."""

from typing import Any, Final

__all__ = ["MEDIA_PATHS", "MEDIA_SCHEMAS"]

_SECURITY: Final[list[dict[str, list[str]]]] = [{"api": []}]
_ERROR: Final = {
    "description": "An error; `code` says which.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}
_SOUNDS: Final = ("audio/mpeg", "audio/wav", "audio/flac", "audio/ogg", "audio/aac", "audio/pcm", "audio/basic")
_FORMATS: Final = ["aac", "flac", "mp3", "mulaw", "ogg", "opus", "pcm", "wav"]
_RATES: Final = [8000, 16000, 22050, 24000, 32000, 44100, 48000]
_STORE: Final = {"const": False, "description": "true is refused: nothing is stored on request."}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _operation(name: str, summary: str, tag: str, request: str, content: dict[str, Any]) -> dict[str, Any]:
    return {
        "post": {
            "operationId": name,
            "summary": summary,
            "tags": [tag],
            "security": _SECURITY,
            "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(request)}}},
            "responses": {"200": {"description": "Done.", "content": content}, "4XX": _ERROR, "5XX": _ERROR},
        }
    }


MEDIA_PATHS: Final[dict[str, dict[str, Any]]] = {
    "/v1/embeddings": _operation(
        "create_embedding",
        "Vectors of texts; nothing of it is ever kept.",
        "embeddings",
        "EmbeddingRequest",
        {"application/json": {"schema": _ref("EmbeddingList")}},
    ),
    "/v1/audio/speech": _operation(
        "create_speech",
        "Speak a text, sent as it is spoken; nothing of it is kept unless the data controls say so.",
        "audio",
        "SpeechRequest",
        {
            **{sound: {"schema": {"type": "string", "format": "binary"}} for sound in _SOUNDS},
            "text/event-stream": {"schema": {"type": "string"}},
        },
    ),
}

MEDIA_SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    "EmbeddingRequest": {
        "type": "object",
        "required": ["model", "input"],
        "properties": {
            "model": {"type": "string", "minLength": 1, "maxLength": 96},
            "input": {
                "anyOf": [
                    {"type": "string", "minLength": 1},
                    {
                        "type": "array",
                        "minItems": 1,
                        "maxItems": 2048,
                        "items": {"type": "string", "minLength": 1},
                    },
                ]
            },
            "encoding_format": {"enum": ["float", "base64"]},
            "dimensions": {"type": "integer", "minimum": 1, "maximum": 65536},
            "user": {"type": "string", "maxLength": 512},
            "store": _STORE,
        },
    },
    "EmbeddingList": {
        "type": "object",
        "required": ["object", "data", "model", "usage"],
        "properties": {
            "object": {"const": "list"},
            "data": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["object", "index", "embedding"],
                    "properties": {
                        "object": {"const": "embedding"},
                        "index": {"type": "integer"},
                        "embedding": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "number"}}]},
                    },
                },
            },
            "model": {"type": "string"},
            "usage": {
                "type": "object",
                "required": ["prompt_tokens", "total_tokens"],
                "properties": {"prompt_tokens": {"type": "integer"}, "total_tokens": {"type": "integer"}},
            },
        },
    },
    "SpeechRequest": {
        "type": "object",
        "required": ["model", "input", "voice"],
        "properties": {
            "model": {"type": "string", "minLength": 1, "maxLength": 96},
            "input": {
                "type": "string",
                "minLength": 1,
                "description": "At most 4096 characters, if not set otherwise.",
            },
            "voice": {"type": "string", "description": "A voice of the model, see `/v1/models/{model}`."},
            "response_format": {"enum": _FORMATS},
            "sample_rate": {"enum": _RATES},
            "speed": {"type": "number", "minimum": 0.25, "maximum": 4},
            "stream_format": {"enum": ["audio", "sse"]},
            "instructions": {"type": "string", "maxLength": 4096},
            "store": _STORE,
        },
    },
}
