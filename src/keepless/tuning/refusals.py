"""What is told to a client whose fine-tuning is refused. Fixed texts; names are of our own tables and settings.

Holds: one function a refusal. Leaves out: refusals of parameters (gateway), what is wrong with files (faults).
"""

from collections.abc import Iterable

from keepless.errors import Code, ErrorType, Problem
from keepless.policy.data_class import Feature
from keepless.policy.decision import Discard, DiscardReason
from keepless.policy.refusal import feature_refused
from keepless.tuning.values import TuningState

__all__ = [
    "base_not_tunable",
    "cannot_keep",
    "deletion_pending",
    "held",
    "no_such_base",
    "no_such_file",
    "no_such_job",
    "no_such_model",
    "not_kept",
    "repeated_otherwise",
    "too_many_to_search",
    "wrong_purpose",
    "wrong_state",
]


def no_such_job() -> Problem:
    """Not there, another project's, or deleted: always the same answer (DECISIONS 9)."""
    return Problem(404, Code.NOT_FOUND, "There is no fine-tuning with this id.", param="id")


def no_such_model() -> Problem:
    """Not there, another project's, or deleted: always the same answer."""
    message = "The requested model does not exist or you do not have access to it."
    return Problem(404, Code.MODEL_NOT_FOUND, message, param="model")


def no_such_base(trainable: Iterable[str], param: str) -> Problem:
    """A base model is named by its id in the operator's catalogue."""
    return Problem(
        400,
        Code.MODEL_NOT_FOUND,
        f"This model cannot be fine-tuned here. These can: {', '.join(trainable) or 'none'}.",
        param=param,
    )


def base_not_tunable(param: str) -> Problem:
    """The operator serves it, and it is of a kind that was never compared with the engine's own."""
    message = (
        "This base model is of a kind that cannot be fine-tuned: adapters are imported for llama architectures, and "
        "trained for those whose tokenizer is SmolLM's."
    )
    return Problem(400, Code.UNSUPPORTED_VALUE, message, param=param, retry=False)


def no_such_file(param: str) -> Problem:
    """Not there, another project's, expired or deleted."""
    return Problem(404, Code.NOT_FOUND, "There is no file with this id.", param=param)


def wrong_purpose(param: str) -> Problem:
    """A dataset is uploaded as one."""
    message = "The files of a fine-tuning must have the purpose fine-tune (or fine_tuning)."
    return Problem(400, Code.INVALID_VALUE, message, param=param)


def wrong_state(state: TuningState, done: str) -> Problem:
    """`done`: what cannot be done with it, as a word of ours."""
    message = f"A fine-tuning that is {state.value} cannot be {done}."
    return Problem(400, Code.INVALID_VALUE, message, param="fine_tuning_job_id", retry=False)


def not_kept(discard: Discard) -> Problem:
    """The decision was to keep nothing, and a fine-tuning cannot be that."""
    if discard.reason is DiscardReason.POLICY_UNREADABLE:
        return cannot_keep()
    return feature_refused(Feature.FINE_TUNING, discard)


def cannot_keep() -> Problem:
    """Nothing was kept, so nothing was begun."""
    return Problem(
        503,
        Code.POLICY_UNREADABLE,
        "What a fine-tuning needs cannot be kept at the moment: the policy cannot be read or keeps changing, or the "
        "store or its location does not take it.",
        type=ErrorType.SERVER,
        retry=False,
    )


def repeated_otherwise() -> Problem:
    """One key stands for one fine-tuning."""
    message = "This idempotency key was used for another fine-tuning within the last day."
    return Problem(400, Code.INVALID_VALUE, message, param="idempotency-key")


def too_many_to_search(most: int) -> Problem:
    """What is sealed is opened one by one."""
    message = f"More than {most} fine-tunings would have to be opened for this: go on from one of them (after)."
    return Problem(400, Code.INVALID_VALUE, message, param="metadata", retry=False)


def held(hold_ids: Iterable[str]) -> Problem:
    """A legal hold wins over DELETE (DECISIONS 10)."""
    message = f"A legal hold keeps this fine-tuning from being deleted: {', '.join(hold_ids)}."
    return Problem(423, Code.HELD, message, retry=False)


def deletion_pending() -> Problem:
    """The keys are destroyed, the store has not answered (DECISIONS 13)."""
    return Problem(
        503,
        Code.DELETION_PENDING,
        "The fine-tuning is unreadable for good and answers 404 from now on; its store has not yet acknowledged that "
        "the bytes are gone. The next sweep finishes this; the same call then answers that it is deleted.",
        type=ErrorType.SERVER,
        headers={"retry-after": "30"},
    )
