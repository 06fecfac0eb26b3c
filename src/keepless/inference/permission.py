"""Whether a request may be sent to exactly this engine, now: the caller's policy under the lease meets `eligible`.

Holds: `refusal`. Leaves out: when it is asked (pipeline, tries: before choosing, at the moment of sending, and for what
is under way after every change of policy).
"""

from keepless.accounts.lease import Lease
from keepless.errors import Code, Problem
from keepless.inference import faults
from keepless.inference.asking import Ask
from keepless.inference.faults import Fault
from keepless.inference.target import Target, eligible

__all__ = ["refusal"]


def refusal(lease: Lease, ask: Ask, target: Target) -> Fault | None:
    """Why policy does not permit exactly this engine for a request at this moment; None when it does."""
    valid = lease.valid  # first: what is looked up afterwards is at least as new
    organization = lease.organization(ask.principal.organization.id)
    project = lease.project(ask.principal.project.id)
    if organization is None or project is None:
        return Fault(Problem(401, Code.INVALID_API_KEY, "This API key is not valid any more."), None)
    region = organization.region
    zero_only = ask.controls.zero_upstream or project.effective.zero_upstream_only
    refused = eligible(target, zero_only=zero_only, region=region)
    if refused is not None:
        return faults.withdrawn(refused)
    if not valid and eligible(target, zero_only=True, region=region) is not None:
        return faults.withdrawn(None)
    return None
