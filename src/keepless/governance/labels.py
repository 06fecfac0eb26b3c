"""OpenAI's `data_retention` labels for organizations and projects (WIRE, DECISIONS 2).

Holds: `label`, `set_label`. Leaves out: the controls behind them, HTTP.

A label tightens only what it names and never re-enables a feature; a project's `organization_default` (and `none`,
which means the same) drops what the project's own label has set. Reading gives the strictest label that is true. What
`enhanced_*` means is published nowhere, so it is refused rather than guessed.
"""

from typing import Final

from keepless.accounts.principal import AdminPrincipal
from keepless.errors import Code, Problem
from keepless.governance.controls import DataControls, State, words
from keepless.governance.patch import Patch
from keepless.governance.standing import Standing
from keepless.ids import Id
from keepless.policy.data_class import Feature

__all__ = ["label", "set_label"]

_ZERO: Final = "zero_data_retention"
_NO_LOGS: Final = "modified_abuse_monitoring"
_DEFAULT: Final = "organization_default"
_NONE: Final = "none"
_PATCHES: Final = {
    _ZERO: Patch(zero_data_retention=True, purge=False),
    _NO_LOGS: Patch(off={Feature.INFERENCE_LOGGING: True}, purge=False),
}
_NO_OVERRIDE: Final = Patch(
    zero_data_retention=False, off={Feature.INFERENCE_LOGGING: False}, purge=False, no_override=True
)


def label(controls: DataControls, organization_id: Id, project_id: Id | None = None) -> State:
    """The label in OpenAI's shape, with what it cannot say. Raises `Problem` 404."""
    with controls.reading() as tx:
        standing = controls.standing(tx, organization_id, project_id)
    force = standing.in_force
    return {
        "object": "organization.data_retention" if project_id is None else "project.data_retention",
        "type": _type(standing),
        "features": words(set(Feature) - force.on),
        "source": {feature.value: force.feature_source[feature].value for feature in Feature},
        "epoch": standing.epoch,
    }


def set_label(
    controls: DataControls, organization_id: Id, name: str, actor: AdminPrincipal, project_id: Id | None = None
) -> State:
    """Set a label, wait for the fence, answer the label now true. Raises `Problem` as `DataControls.change` does."""
    patch = _PATCHES.get(name)
    if patch is None and project_id is not None and name in (_DEFAULT, _NONE):
        patch = _NO_OVERRIDE
    if patch is None:
        message = (
            "retention_type can be zero_data_retention or modified_abuse_monitoring; for a project also "
            "organization_default or none. Everything else is set under data_controls."
        )
        raise Problem(400, Code.UNSUPPORTED_VALUE, message, param="retention_type")
    controls.change(organization_id, patch, actor, project_id=project_id)
    return label(controls, organization_id, project_id)


def _type(standing: Standing) -> str:
    if standing.project_id is None:
        on = standing.in_force.on
        return _ZERO if not on else _NONE if Feature.INFERENCE_LOGGING in on else _NO_LOGS
    own = standing.own
    if own.zero_data_retention or own.off == set(Feature):
        return _ZERO
    return _NO_LOGS if Feature.INFERENCE_LOGGING in own.off else _DEFAULT
