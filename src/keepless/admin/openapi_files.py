"""What `/openapi.json` says of /files and /uploads: the routes, by hand, as for all inference (openapi_inference)."""

from typing import Any, Final

__all__ = ["FILE_PATHS", "FILE_SCHEMAS"]

# An owner's admin key reads and deletes the files of every project.
_SECURITY: Final[list[dict[str, list[str]]]] = [{"api": []}, {"admin": []}]
_ERROR: Final = {
    "description": "An error; `code` says which.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}
_ID: Final = {
    "name": "id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "minLength": 1, "maxLength": 96, "pattern": "^[A-Za-z0-9_-]+$"},
}
_BYTES: Final = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_PURPOSES: Final = ["batch", "batch_output", "fine-tune", "fine_tuning"]


def _ref(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _call(operation_id: str, summary: str, answers: dict[str, Any], **more: Any) -> dict[str, Any]:
    done = {status: {"description": "Done.", "content": content} for status, content in answers.items()}
    return {
        "operationId": operation_id,
        "summary": summary,
        "tags": ["files"],
        "security": _SECURITY,
        "responses": {**done, "4XX": _ERROR, "5XX": _ERROR},
        **more,
    }


def _made(operation_id: str, summary: str, answer: str, asked: str) -> dict[str, Any]:
    body = {"required": True, "content": _ref(asked)}
    return _call(operation_id, summary, {"200": _ref(answer)}, security=[{"api": []}], requestBody=body)


def _query(name: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema}


FILE_PATHS: Final[dict[str, dict[str, Any]]] = {
    "/v1/files": {
        "post": _call(
            "create_file",
            "Keep a file for a feature; it ends as the schedule says, or earlier (`expires_after`).",
            {"200": _ref("File")},
            security=[{"api": []}],
            requestBody={
                "required": True,
                "content": {"multipart/form-data": {"schema": {"$ref": "#/components/schemas/FileForm"}}},
            },
        ),
        "get": _call(
            "list_files",
            "The project's files, the newest first.",
            {"200": _ref("FileList")},
            parameters=[
                _query("after", type="string", minLength=1, maxLength=96),
                _query("cursor", type="string", minLength=1, maxLength=96),
                _query("limit", type="integer", minimum=1, maximum=10_000),
                _query("order", enum=["asc", "desc"]),
                _query("purpose", enum=_PURPOSES),
            ],
        ),
    },
    "/v1/files/{id}": {
        "get": _call("retrieve_file", "One file.", {"200": _ref("File")}, parameters=[_ID]),
        "delete": _call(
            "delete_file",
            "Destroy a file; `deleted` is said when nobody can read it any more.",
            {"200": _ref("FileDeleted")},
            parameters=[_ID],
        ),
    },
    "/v1/files/{id}/content": {
        "get": _call(
            "download_file",
            "What a file holds, whole or one range of it.",
            {"200": _BYTES, "206": _BYTES},
            parameters=[_ID, {"name": "Range", "in": "header", "required": False, "schema": {"type": "string"}}],
        )
    },
    "/v1/uploads": {
        "post": _made(
            "create_upload", "Begin a file that comes in parts; it ends after an hour.", "Upload", "NewUpload"
        )
    },
    "/v1/uploads/{id}/parts": {
        "post": _call(
            "add_upload_part",
            "Keep one part.",
            {"200": _ref("UploadPart")},
            security=[{"api": []}],
            parameters=[_ID],
            requestBody={
                "required": True,
                "content": {"multipart/form-data": {"schema": {"$ref": "#/components/schemas/UploadPartForm"}}},
            },
        )
    },
    "/v1/uploads/{id}/complete": {
        "post": {
            **_made("complete_upload", "Make one file of parts, in this order.", "Upload", "UploadParts"),
            "parameters": [_ID],
        }
    },
    "/v1/uploads/{id}/cancel": {
        "post": _call(
            "cancel_upload",
            "End an upload; its parts are destroyed.",
            {"200": _ref("Upload")},
            security=[{"api": []}],
            parameters=[_ID],
        )
    },
}

FILE_SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    "FileForm": {
        "type": "object",
        "required": ["file", "purpose"],
        "properties": {
            "file": {"type": "string", "format": "binary", "minLength": 1},
            "purpose": {"enum": ["batch", "fine-tune", "fine_tuning"]},
            "expires_after[anchor]": {"const": "created_at"},
            "expires_after[seconds]": {"type": "integer", "minimum": 3600, "maximum": 2_592_000},
        },
        "additionalProperties": False,
    },
    "File": {
        "type": "object",
        "required": ["id", "object", "bytes", "created_at", "expires_at", "filename", "purpose", "status"],
        "properties": {
            "id": {"type": "string"},
            "object": {"const": "file"},
            "bytes": {"type": "integer"},
            "created_at": {"type": "integer"},
            "expires_at": {"type": ["integer", "null"]},
            "filename": {"type": "string"},
            "purpose": {"enum": _PURPOSES[:3]},
            "status": {"const": "processed"},
            "status_details": {"type": "null"},
        },
    },
    "FileList": {
        "type": "object",
        "required": ["object", "data", "has_more"],
        "properties": {
            "object": {"const": "list"},
            "data": {"type": "array", "items": {"$ref": "#/components/schemas/File"}},
            "first_id": {"type": ["string", "null"]},
            "last_id": {"type": ["string", "null"]},
            "has_more": {"type": "boolean"},
            "paging": {"type": "object"},
        },
    },
    "NewUpload": {
        "type": "object",
        "required": ["bytes", "filename", "mime_type", "purpose"],
        "properties": {
            "bytes": {"type": "integer", "minimum": 1},
            "filename": {"type": "string", "minLength": 1, "maxLength": 900},
            "mime_type": {"type": "string", "maxLength": 200},
            "purpose": {"enum": ["batch", "fine-tune", "fine_tuning"]},
            "expires_after": {
                "type": ["object", "null"],
                "required": ["anchor", "seconds"],
                "properties": {
                    "anchor": {"const": "created_at"},
                    "seconds": {"type": "integer", "minimum": 3600, "maximum": 2_592_000},
                },
            },
        },
    },
    "UploadPartForm": {
        "type": "object",
        "required": ["data"],
        "properties": {"data": {"type": "string", "format": "binary", "minLength": 1}},
        "additionalProperties": False,
    },
    "UploadParts": {
        "type": "object",
        "required": ["part_ids"],
        "properties": {
            "part_ids": {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}},
            "md5": {"type": "string", "maxLength": 64},
        },
    },
    "Upload": {
        "type": "object",
        "required": ["id", "object", "bytes", "created_at", "expires_at", "filename", "purpose", "status"],
        "properties": {
            "id": {"type": "string"},
            "object": {"const": "upload"},
            "bytes": {"type": "integer"},
            "created_at": {"type": "integer"},
            "expires_at": {"type": "integer"},
            "filename": {"type": "string"},
            "purpose": {"enum": ["batch", "fine-tune"]},
            "status": {"enum": ["pending", "completed", "cancelled"]},
            "file": {"anyOf": [{"$ref": "#/components/schemas/File"}, {"type": "null"}]},
        },
    },
    "UploadPart": {
        "type": "object",
        "required": ["id", "object", "created_at", "upload_id"],
        "properties": {
            "id": {"type": "string"},
            "object": {"const": "upload.part"},
            "created_at": {"type": "integer"},
            "upload_id": {"type": "string"},
        },
    },
    "FileDeleted": {
        "type": "object",
        "required": ["id", "object", "deleted"],
        "properties": {
            "id": {"type": "string"},
            "object": {"const": "file"},
            "deleted": {"const": True},
            "fine_tuned_models_kept": {
                "type": "array",
                "description": "Models that have learned from it, and stay (an extension).",
                "items": {"type": "string"},
            },
        },
    },
}
