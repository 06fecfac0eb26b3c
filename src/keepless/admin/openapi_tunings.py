"""What `/openapi.json` says of fine-tunings: by hand, as of every route that is asked with an API key."""

from typing import Any, Final

from keepless.tuning.values import RANKS, FailCode, TuningKind, TuningState

__all__ = ["MODEL_DELETION", "TUNING_PATHS", "TUNING_SCHEMAS"]

_SECURITY: Final[list[dict[str, list[str]]]] = [{"api": []}]
_OWNERS: Final[list[dict[str, list[str]]]] = [{"api": []}, {"admin": []}]
_ERROR: Final = {
    "description": "An error; `code` says which.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}
_INSTANT: Final = {"type": ["integer", "null"]}
_TEXT: Final = {"type": ["string", "null"]}
_NUMBER: Final = {"type": ["number", "null"]}
_NAME: Final = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"}
_KNOBS: Final = {
    "type": ["object", "null"],
    "additionalProperties": False,
    "properties": {
        "n_epochs": {"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": 50}]},
        "batch_size": {"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": 256}]},
        "learning_rate_multiplier": {
            "anyOf": [{"const": "auto"}, {"type": "number", "exclusiveMinimum": 0, "maximum": 100}]
        },
        "r": {"enum": list(RANKS)},
        "alpha": {"type": "integer", "minimum": 1, "maximum": 1024},
    },
}
_SEED: Final = {"type": ["integer", "null"], "minimum": 0, "maximum": 2**32 - 1}
_PROGRESS: Final = {
    "type": "object",
    "description": "How far it is (an extension).",
    "properties": {
        "percent": {"type": "number"},
        "step": {"type": "integer"},
        "total": {"type": "integer"},
        "eta_seconds": {"type": ["integer", "null"]},
        "ended": {"type": "boolean"},
    },
}
_FAILURE: Final = {
    "type": ["object", "null"],
    "properties": {
        "code": {"enum": [code.value for code in FailCode]},
        "message": {"type": "string"},
        "param": _TEXT,
        "faults_found": {"type": "integer"},
        "faults": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "code": {"type": "string"},
                    "line": {"type": ["integer", "null"]},
                    "message": {"type": "string"},
                    "param": _TEXT,
                    "file": {"type": "string"},
                },
            },
        },
    },
}
_METRICS: Final = {
    "train_loss": _NUMBER,
    "train_mean_token_accuracy": _NUMBER,
    "valid_loss": _NUMBER,
    "valid_mean_token_accuracy": _NUMBER,
}


def _id(name: str) -> dict[str, Any]:
    schema = {"type": "string", "minLength": 1, "pattern": "^[A-Za-z0-9_-]+$"}
    return {"name": name, "in": "path", "required": True, "schema": schema}


_JOB: Final = [_id("fine_tuning_job_id")]
_TUNING: Final = [_id("fine_tuning_id")]


def _query(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema}


_PAGE: Final = [_query("limit", {"type": "integer", "minimum": 1, "maximum": 100}), _query("after", {"type": "string"})]


def _operation(operation_id: str, summary: str, answer: str, *, body: str | None = None, **more: Any) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{answer}"}}}
    asked = {}
    if body is not None:
        schema = {"$ref": f"#/components/schemas/{body}"}
        asked["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return {
        "operationId": operation_id,
        "summary": summary,
        "tags": ["fine-tuning"],
        "security": _SECURITY,
        **asked,
        **more,
        "responses": {"200": {"description": "Done.", "content": content}, "4XX": _ERROR, "503": _ERROR},
    }


def _events() -> dict[str, Any]:
    operation = _operation(
        "list_fine_tuning_events",
        "What is told of a job, newest first; with stream=true as server-sent events, oldest first, as they come.",
        "FineTuningEventList",
        parameters=[*_JOB, *_PAGE, _query("stream", {"type": "boolean"})],
        security=_OWNERS,
    )
    operation["responses"]["200"]["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    return operation


MODEL_DELETION: Final = _operation(
    "delete_model",
    "Destroy a tuned model and the fine-tuning that it came of.",
    "ModelDeleted",
    parameters=[{"name": "model", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}],
    security=_OWNERS,
)

TUNING_PATHS: Final[dict[str, dict[str, Any]]] = {
    "/v1/fine_tuning/jobs": {
        "post": _operation(
            "create_fine_tuning_job", "Train a LoRA on chat examples.", "FineTuningJob", body="FineTuningJobRequest"
        ),
        "get": _operation(
            "list_fine_tuning_jobs",
            "The project's fine-tunings, newest first; metadata[key]=value or metadata=null chooses among them.",
            "FineTuningJobList",
            parameters=_PAGE,
            security=_OWNERS,
        ),
    },
    "/v1/fine_tuning/jobs/{fine_tuning_job_id}": {
        "get": _operation(
            "retrieve_fine_tuning_job",
            "One fine-tuning, with how far it is and its loss curve.",
            "FineTuningJob",
            parameters=_JOB,
            security=_OWNERS,
        )
    },
    "/v1/fine_tuning/jobs/{fine_tuning_job_id}/cancel": {
        "post": _operation("cancel_fine_tuning_job", "End a job without a model.", "FineTuningJob", parameters=_JOB)
    },
    "/v1/fine_tuning/jobs/{fine_tuning_job_id}/pause": {
        "post": _operation("pause_fine_tuning_job", "Let a job wait.", "FineTuningJob", parameters=_JOB)
    },
    "/v1/fine_tuning/jobs/{fine_tuning_job_id}/resume": {
        "post": _operation("resume_fine_tuning_job", "Let a paused job go on.", "FineTuningJob", parameters=_JOB)
    },
    "/v1/fine_tuning/jobs/{fine_tuning_job_id}/events": {"get": _events()},
    "/v1/fine_tuning/jobs/{fine_tuning_job_id}/checkpoints": {
        "get": _operation(
            "list_fine_tuning_checkpoints",
            "Where a job that has not ended could go on.",
            "FineTuningCheckpointList",
            parameters=[*_JOB, *_PAGE],
            security=_OWNERS,
        )
    },
    "/v1/fine_tunings": {
        "post": _operation(
            "create_fine_tuning",
            "Import an adapter (a ZIP), or train on chat examples.",
            "FineTuning",
            body="FineTuningRequest",
        ),
        "get": _operation(
            "list_fine_tunings",
            "The project's fine-tunings, newest first.",
            "FineTuningList",
            parameters=_PAGE,
            security=_OWNERS,
        ),
    },
    "/v1/fine_tunings/{fine_tuning_id}": {
        "get": _operation(
            "retrieve_fine_tuning", "One fine-tuning.", "FineTuning", parameters=_TUNING, security=_OWNERS
        ),
        "delete": _operation(
            "delete_fine_tuning",
            "Destroy a fine-tuning: model, checkpoints, history.",
            "FineTuningDeleted",
            parameters=_TUNING,
            security=_OWNERS,
        ),
    },
}


def _list(item: str) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["object", "data", "has_more"],
        "properties": {
            "object": {"const": "list"},
            "data": {"type": "array", "items": {"$ref": f"#/components/schemas/{item}"}},
            "first_id": _TEXT,
            "last_id": _TEXT,
            "has_more": {"type": "boolean"},
            "paging": {"type": "object", "properties": {"next_cursor": _TEXT}},
        },
    }


def _deleted(kind: str) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["id", "object", "deleted"],
        "properties": {"id": {"type": "string"}, "object": {"const": kind}, "deleted": {"const": True}},
    }


TUNING_SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    "FineTuningJobRequest": {
        "type": "object",
        "required": ["model", "training_file"],
        "additionalProperties": False,
        "properties": {
            "model": {"type": "string"},
            "training_file": {"type": "string"},
            "validation_file": _TEXT,
            "suffix": {"anyOf": [_NAME, {"type": "null"}, {"const": ""}]},
            "seed": _SEED,
            "metadata": {
                "type": ["object", "null"],
                "maxProperties": 16,
                "propertyNames": {"maxLength": 64},
                "additionalProperties": {"type": "string", "maxLength": 512},
            },
            "hyperparameters": _KNOBS,
            "method": {
                "type": ["object", "null"],
                "required": ["type"],
                "additionalProperties": False,
                "properties": {
                    "type": {"const": "supervised"},
                    "supervised": {
                        "type": ["object", "null"],
                        "additionalProperties": False,
                        "properties": {"hyperparameters": _KNOBS},
                    },
                },
            },
            "integrations": {"type": ["array", "null"], "maxItems": 0},
        },
    },
    "FineTuningJob": {
        "type": "object",
        "required": ["id", "object", "created_at", "model", "status", "hyperparameters", "training_file", "progress"],
        "properties": {
            "id": {"type": "string"},
            "object": {"const": "fine_tuning.job"},
            "created_at": {"type": "integer"},
            "finished_at": _INSTANT,
            "estimated_finish": _INSTANT,
            "error": _FAILURE,
            "fine_tuned_model": _TEXT,
            "hyperparameters": {"type": "object"},
            "model": {"type": "string"},
            "organization_id": {"type": "string"},
            "result_files": {"type": "array", "items": {"type": "string"}},
            "seed": {"type": "integer"},
            "status": {"enum": [state.value for state in TuningState]},
            "kind": {"enum": [kind.value for kind in TuningKind]},
            "suffix": {"type": "string"},
            "trained_tokens": {"type": ["integer", "null"]},
            "training_file": {"type": "string"},
            "validation_file": _TEXT,
            "metadata": {"type": ["object", "null"]},
            "method": {"type": "object"},
            "integrations": {"type": "array"},
            "progress": _PROGRESS,
            "loss_curve": {
                "type": "array",
                "items": {"type": "object", "properties": {"step": {"type": "integer"}, **_METRICS}},
            },
        },
    },
    "FineTuningEvent": {
        "type": "object",
        "required": ["id", "object", "created_at", "level", "message"],
        "properties": {
            "id": {"type": "string"},
            "object": {"const": "fine_tuning.job.event"},
            "created_at": {"type": "integer"},
            "level": {"enum": ["info", "warn", "error"]},
            "message": {"type": "string"},
            "type": {"enum": ["message", "metrics"]},
            "code": {"type": "string"},
            "data": {"type": "object"},
        },
    },
    "FineTuningCheckpoint": {
        "type": "object",
        "required": ["id", "object", "created_at", "fine_tuned_model_checkpoint", "fine_tuning_job_id", "step_number"],
        "properties": {
            "id": {"type": "string"},
            "object": {"const": "fine_tuning.job.checkpoint"},
            "created_at": {"type": "integer"},
            "fine_tuned_model_checkpoint": {"type": "string"},
            "fine_tuning_job_id": {"type": "string"},
            "step_number": {"type": "integer"},
            "metrics": {"type": "object"},
            "served": {"const": False},
        },
    },
    "FineTuningRequest": {
        "type": "object",
        "required": ["base_model", "name", "type", "input_file_id"],
        "additionalProperties": False,
        "properties": {
            "base_model": {"type": "string"},
            "name": _NAME,
            "type": {"const": "lora"},
            "input_file_id": {"type": "string"},
            "hyperparameters": _KNOBS,
            "seed": _SEED,
        },
    },
    "FineTuningData": {
        "type": "object",
        "required": ["id", "name", "base_model", "type", "input_file_id", "created_at", "fine_tuned_model", "status"],
        "properties": {
            "id": {"type": "string"},
            "name": {"type": "string"},
            "base_model": {"type": "string"},
            "type": {"const": "lora"},
            "input_file_id": {"type": "string"},
            "created_at": {"type": "integer"},
            "fine_tuned_model": {"type": "string"},
            "status": {"enum": [state.value for state in TuningState]},
            "kind": {"enum": [kind.value for kind in TuningKind]},
            "error": _FAILURE,
            "progress": _PROGRESS,
            "fine_tuning_job_id": {"type": "string"},
        },
    },
    "FineTuning": {
        "type": "object",
        "required": ["id", "object", "data"],
        "properties": {
            "id": {"type": "string"},
            "object": {"const": "fine_tuning"},
            "data": {"$ref": "#/components/schemas/FineTuningData"},
        },
    },
    "FineTuningJobList": _list("FineTuningJob"),
    "FineTuningEventList": _list("FineTuningEvent"),
    "FineTuningCheckpointList": _list("FineTuningCheckpoint"),
    "FineTuningList": _list("FineTuningData"),
    "FineTuningDeleted": _deleted("fine_tuning"),
    "ModelDeleted": _deleted("model"),
}
