"""Whether a request may be sent to exactly this engine, now: the caller's policy under the lease meets `eligible`.

Holds: `refusal`, and `refusal_of_tuned`, what a tuned model needs besides. Leaves out: when it is asked (pipeline,
tries: before choosing, at the moment of sending, and for what is under way after every change of policy).
"""

from typing import Final

from keepless.accounts.lease import Lease
from keepless.accounts.principal import ProjectState
from keepless.accounts.tuned import Tuned
from keepless.errors import Code, Problem
from keepless.inference import faults
from keepless.inference.asking import Ask
from keepless.inference.faults import Fault
from keepless.inference.target import Target, eligible
from keepless.policy.data_class import Feature
from keepless.policy.refusal import feature_disabled

__all__ = ["no_such_model", "refusal", "refusal_of_tuned"]

_FINE_TUNING: Final = Feature.FINE_TUNING


def refusal(lease: Lease, ask: Ask, target: Target) -> Fault | None:
    """Why policy does not permit exactly this engine for a request at this moment; None when it does."""
    valid = lease.valid  # first: what is looked up afterwards is at least as new
    organization = lease.organization(ask.principal.organization.id)
    project = lease.project(ask.principal.project.id)
    if organization is None or project is None:
        return Fault(Problem(401, Code.INVALID_API_KEY, "This API key is not valid any more."), None)
    tuned = ask.route.tuned
    if tuned is not None:
        gone = refusal_of_tuned(lease, tuned, project)
        if gone is not None or not valid:
            return faults.withdrawn(gone)
    region = organization.region
    zero_only = ask.controls.zero_upstream or project.effective.zero_upstream_only
    refused = eligible(target, zero_only=zero_only, region=region)
    if refused is not None:
        return faults.withdrawn(refused)
    if not valid and eligible(target, zero_only=True, region=region) is not None:
        return faults.withdrawn(None)
    return None


def refusal_of_tuned(lease: Lease, tuned: Tuned, project: ProjectState) -> Problem | None:
    """Why a tuned model is not served to its own project at this moment; None when it is."""
    if _FINE_TUNING not in project.effective.on:
        return feature_disabled(_FINE_TUNING, project.effective.feature_source[_FINE_TUNING])
    return None if lease.tuned(tuned.hexadecimal) is not None else no_such_model()


def no_such_model() -> Problem:
    """The refusal of a model that does not exist, is not theirs, or was deleted."""
    return Problem(
        404,
        Code.MODEL_NOT_FOUND,
        "The requested model does not exist or you do not have access to it. GET /models lists the models.",
        param="model",
    )
