"""What `/openapi.json` says of audio: the routes, by hand, as for all inference (openapi_inference)."""

from typing import Any, Final

__all__ = ["AUDIO_PATHS", "AUDIO_SCHEMAS"]

_SECURITY: Final[list[dict[str, list[str]]]] = [{"api": []}]
_ERROR: Final = {
    "description": "An error; `code` says which.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}
_FIELDS: Final[dict[str, Any]] = {
    "model": {"type": "string", "minLength": 1, "maxLength": 96},
    "prompt": {"type": "string", "maxLength": 1000},
    "temperature": {"type": "number", "minimum": 0, "maximum": 1},
    "response_format": {"enum": ["json", "text", "verbose_json", "srt", "vtt"]},
}
_FILE: Final = {
    "type": "string",
    "contentEncoding": "binary",
    "description": "wav, mp3, flac, ogg, webm or m4a. Its name is not looked at.",
}
_URL: Final = {
    "type": "string",
    "pattern": "^data:audio/[a-z0-9]{1,10};base64,[A-Za-z0-9+/]{4,40}$",
    "description": "The audio as a data URL, of any length, or where it is: https, on a host that the operator allows.",
}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _post(operation_id: str, summary: str, more: dict[str, Any]) -> dict[str, Any]:
    form = {"type": "object", "required": ["model", "file"], "properties": {**_FIELDS, **more, "file": _FILE}}
    plain = {"type": "object", "required": ["model", "url"], "properties": {**_FIELDS, **more, "url": _URL}}
    text = {"schema": {"type": "string"}}
    content = {
        "application/json": {"schema": _ref("Transcript")},
        "text/plain": text,
        "text/vtt": text,
        **({"text/event-stream": text} if "stream" in more else {}),
    }
    return {
        "post": {
            "operationId": operation_id,
            "summary": summary,
            "tags": ["audio"],
            "security": _SECURITY,
            "requestBody": {
                "required": True,
                "content": {"multipart/form-data": {"schema": form}, "application/json": {"schema": plain}},
            },
            "responses": {"200": {"description": "Done.", "content": content}, "4XX": _ERROR, "5XX": _ERROR},
        }
    }


AUDIO_PATHS: Final[dict[str, dict[str, Any]]] = {
    "/v1/audio/transcriptions": _post(
        "create_transcription",
        "What was said, as text; the audio is never written anywhere unless the data controls say so.",
        {"language": {"enum": ["en", "de", "fr", "es"]}, "stream": {"type": "boolean"}},
    ),
    "/v1/audio/translations": _post(
        "create_translation", "What was said, as English text; kept like a transcription.", {}
    ),
}

AUDIO_SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    "Transcript": {
        "type": "object",
        "required": ["text"],
        "properties": {
            "text": {"type": "string"},
            "language": {"type": "string"},
            "duration": {"type": "number", "description": "Seconds."},
            "segments": {"type": "array", "items": {"type": "object"}},
            "words": {"type": "array", "items": {"type": "object"}},
            "usage": {"type": "object"},
        },
    },
}
