"""Fine-tunings as OpenAI's and Groq's clients read them, with how far they are (extensions).

Holds: `job_shape`, `tuning_shape` (Groq's), `event_shape`, `checkpoint_shape`, `progress_of`, `curve_of`, `page_shape`,
`job_id_of`. Pure: values, the clock's reading, and what the customer has chosen as the text it was sent as.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from keepless.ids import Id, Prefix, parse
from keepless.tuning.faults import FAULT_TEXT, Fault
from keepless.tuning.names import name_of
from keepless.tuning.values import (
    FAIL_TEXT,
    TERMINAL,
    Checkpoint,
    Event,
    EventCode,
    FailCode,
    Hyperparameters,
    Job,
    Metrics,
    TuningState,
)

__all__ = [
    "checkpoint_shape",
    "curve_of",
    "event_shape",
    "job_id_of",
    "job_shape",
    "page_shape",
    "progress_of",
    "tuning_id_of",
    "tuning_shape",
]

_PARAM_OF: Final = {
    FailCode.TRAINING_FILE: "training_file",
    FailCode.VALIDATION_FILE: "validation_file",
    FailCode.ADAPTER: "training_file",
    FailCode.MODEL_GONE: "model",
}


def tuning_id_of(job_id: Id) -> str:
    """Groq's name of a job."""
    return Prefix.TUNED_MODEL.value + job_id.removeprefix(Prefix.TUNING_JOB.value)


def job_id_of(text: str) -> Id | None:
    """The job that Groq's name means; None when it cannot be one. OpenAI's name is taken as well."""
    tuning = parse(text, Prefix.TUNED_MODEL)
    if tuning is None:
        return parse(text, Prefix.TUNING_JOB)
    return parse(Prefix.TUNING_JOB.value + tuning.removeprefix(Prefix.TUNED_MODEL.value), Prefix.TUNING_JOB)


def job_shape(
    job: Job,
    name: str,
    *,
    metadata: bytes | None,
    faults: Sequence[Fault],
    now_ms: int,
    curve: Sequence[Any] | None = None,
) -> dict[str, Any]:
    """OpenAI's `fine_tuning.job`. `metadata`: the JSON of an object, or None; `curve`: where one job is asked for."""
    knobs = _knobs(job.hyperparameters)
    left = job.seconds_left(now_ms)
    succeeded = job.state is TuningState.SUCCEEDED
    return {
        "id": str(job.id),
        "object": "fine_tuning.job",
        "created_at": job.created_at // 1000,
        "error": _error(job, faults),
        "fine_tuned_model": _model(job, name) if succeeded else None,
        "finished_at": _seconds(job.finished_at),
        "hyperparameters": knobs,
        "model": job.base_model,
        "organization_id": str(job.organization_id),
        "result_files": [],
        "seed": job.seed,
        "status": job.state.value,
        "trained_tokens": job.tokens if job.state in TERMINAL else None,
        "training_file": str(job.training_file_id),
        "validation_file": None if job.validation_file_id is None else str(job.validation_file_id),
        "estimated_finish": None if job.state in TERMINAL or left is None else now_ms // 1000 + left,
        "integrations": [],
        "metadata": None if metadata is None else msgspec.Raw(metadata),
        "method": {"type": "supervised", "supervised": {"hyperparameters": knobs}},
        "kind": job.kind.value,
        "suffix": name,
        "progress": progress_of(job, now_ms),
        **({} if curve is None else {"loss_curve": curve}),
    }


def tuning_shape(job: Job, name: str, faults: Sequence[Fault], now_ms: int) -> dict[str, Any]:
    """What Groq says of one: `data` of an answer, an item of a list."""
    return {
        "id": tuning_id_of(job.id),
        "name": name,
        "base_model": job.base_model,
        "type": "lora",
        "input_file_id": str(job.training_file_id),
        "created_at": job.created_at // 1000,
        "fine_tuned_model": _model(job, name),
        "status": job.state.value,
        "kind": job.kind.value,
        "error": _error(job, faults),
        "progress": progress_of(job, now_ms),
        "fine_tuning_job_id": str(job.id),
    }


def progress_of(job: Job, now_ms: int) -> dict[str, Any]:
    """How far a job is: `percent` of its steps, and about how many seconds are left (None = nobody can say)."""
    return {
        "percent": job.percent,
        "step": job.step,
        "total": job.total,
        "eta_seconds": job.seconds_left(now_ms),
        "ended": job.state in TERMINAL,
    }


def curve_of(points: Sequence[tuple[int, Metrics]]) -> list[dict[str, Any]]:
    """What the steps have shown, in their order."""
    return [{"step": step, **_metrics(metrics)} for step, metrics in points]


def event_shape(event: Event) -> dict[str, Any]:
    """OpenAI's `fine_tuning.job.event`. The text is ours, filled in with numbers."""
    is_metrics = event.code is EventCode.METRICS
    shown = _metrics(event.metrics)
    return {
        "id": str(event.id),
        "object": "fine_tuning.job.event",
        "created_at": event.at // 1000,
        "level": "error" if event.code is EventCode.FAILED else "info",
        "message": _message(event),
        "type": "metrics" if is_metrics else "message",
        "code": event.code.value,
        "data": {"step": event.step, "total_steps": event.total, **shown} if is_metrics else {"step": event.step},
    }


def checkpoint_shape(one: Checkpoint, job: Job, name: str) -> dict[str, Any]:
    """OpenAI's `fine_tuning.job.checkpoint`. Jobs go on from it; it is not served as a model."""
    metrics = one.metrics
    return {
        "id": str(one.id),
        "object": "fine_tuning.job.checkpoint",
        "created_at": one.created_at // 1000,
        "fine_tuned_model_checkpoint": f"{_model(job, name)}:ckpt-step-{one.step}",
        "fine_tuning_job_id": str(job.id),
        "step_number": one.step,
        "metrics": {
            "step": one.step,
            "train_loss": metrics.loss,
            "train_mean_token_accuracy": metrics.accuracy,
            "valid_loss": metrics.valid_loss,
            "valid_mean_token_accuracy": metrics.valid_accuracy,
            "full_valid_loss": metrics.valid_loss,
            "full_valid_mean_token_accuracy": metrics.valid_accuracy,
        },
        "served": False,
    }


def page_shape(shapes: Sequence[Mapping[str, Any]], *, more: bool) -> dict[str, Any]:
    """A page, in both vendors' words."""
    ids = [shape["id"] for shape in shapes]
    last = ids[-1] if ids else None
    return {
        "object": "list",
        "data": list(shapes),
        "first_id": ids[0] if ids else None,
        "last_id": last,
        "has_more": more,
        "paging": {"next_cursor": last if more else None},
    }


def _model(job: Job, name: str) -> str:
    return name_of(job.base_model, job.organization_id, name, job.hexadecimal)


def _knobs(chosen: Hyperparameters) -> dict[str, Any]:
    def told(value: float | None) -> Any:
        return "auto" if value is None else value

    return {
        "n_epochs": told(chosen.n_epochs),
        "batch_size": told(chosen.batch_size),
        "learning_rate_multiplier": told(chosen.learning_rate_multiplier),
        "r": chosen.r,
        "alpha": chosen.alpha,
    }


def _error(job: Job, faults: Sequence[Fault]) -> dict[str, Any] | None:
    code = job.fail_code
    if code is None:
        return None
    return {
        "code": code.value,
        "message": FAIL_TEXT[code],
        "param": _PARAM_OF.get(code),
        "faults_found": job.faults,
        "faults": [
            {
                "code": fault.code.value,
                "line": fault.line,
                "message": FAULT_TEXT[fault.code],
                "param": None if fault.param is None else fault.param.value,
                "file": fault.file.value,
            }
            for fault in faults
        ],
    }


def _metrics(metrics: Metrics) -> dict[str, Any]:
    return {
        "train_loss": metrics.loss,
        "train_mean_token_accuracy": metrics.accuracy,
        "valid_loss": metrics.valid_loss,
        "valid_mean_token_accuracy": metrics.valid_accuracy,
    }


_TEXT: Final = {
    EventCode.CREATED: "Created fine-tuning job; its files are being checked",
    EventCode.VALIDATED: "Files checked; the job waits for a machine that trains",
    EventCode.STARTED: "Fine-tuning job started",
    EventCode.PAUSED: "Fine-tuning job paused",
    EventCode.RESUMED: "Fine-tuning job resumed; it waits for a machine that trains",
    EventCode.SUCCEEDED: "New fine-tuned model created",
    EventCode.FAILED: "Fine-tuning job failed",
    EventCode.CANCELLED: "Fine-tuning job cancelled",
}


def _message(event: Event) -> str:
    match event.code:
        case EventCode.METRICS:
            loss = event.metrics.loss
            told = "" if loss is None else f": training loss={loss:.4f}"
            valid = event.metrics.valid_loss
            return f"Step {event.step}/{event.total}{told}" + (
                "" if valid is None else f", validation loss={valid:.4f}"
            )
        case EventCode.CHECKPOINT:
            return f"Checkpoint kept at step {event.step}"
        case EventCode.GOES_ON:
            return f"Training goes on from step {event.step}"
        case _:
            return _TEXT[event.code]


def _seconds(instant: int | None) -> int | None:
    return None if instant is None else instant // 1000
