"""Data controls over HTTP: ours (`data_controls`), and OpenAI's label for them (`data_retention`)."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from keepless.admin.asks import ControlsPatch, NoBody, NoQuery, ProjectRetentionUpdate, RetentionUpdate
from keepless.admin.endpoint import Ask
from keepless.admin.services import Services
from keepless.admin.shapes import Controls, Preview, Retention
from keepless.governance import labels
from keepless.governance.patch import Patch
from keepless.ids import Id, Prefix
from keepless.policy.data_class import Feature

__all__ = [
    "change_controls",
    "change_project_controls",
    "preview_controls",
    "preview_project_controls",
    "set_project_retention",
    "set_retention",
    "show_controls",
    "show_project_controls",
    "show_project_retention",
    "show_retention",
]

Shape = TypeVar("Shape", Controls, Preview, Retention)


def show_controls(services: Services, ask: Ask[NoQuery, NoBody]) -> Controls:
    """What is in force for the organization, who decided each value, and what still exists."""
    return _shaped(services.controls.state(ask.organization_id), Controls)


def change_controls(services: Services, ask: Ask[NoQuery, ControlsPatch]) -> Controls:
    """Change the organization's controls; what the change forbids cannot happen any more when this answers."""
    return _shaped(services.controls.change(ask.organization_id, _patch(ask.body), ask.caller), Controls)


def preview_controls(services: Services, ask: Ask[NoQuery, ControlsPatch]) -> Preview:
    """What a change would destroy."""
    return _shaped(services.controls.preview(ask.organization_id, _patch(ask.body)), Preview)


def show_retention(services: Services, ask: Ask[NoQuery, NoBody]) -> Retention:
    """OpenAI's label for the organization's controls: the strictest one that is true."""
    return _shaped(labels.label(services.controls, ask.organization_id), Retention)


def set_retention(services: Services, ask: Ask[NoQuery, RetentionUpdate]) -> Retention:
    """Set OpenAI's label; it tightens what it names and never re-enables a feature."""
    asked = ask.body.retention_type
    return _shaped(labels.set_label(services.controls, ask.organization_id, asked, ask.caller), Retention)


def show_project_controls(services: Services, ask: Ask[NoQuery, NoBody]) -> Controls:
    """What is in force for a project."""
    return _shaped(services.controls.state(ask.organization_id, _project(ask)), Controls)


def change_project_controls(services: Services, ask: Ask[NoQuery, ControlsPatch]) -> Controls:
    """Change a project's controls; tighter than its organization, never looser."""
    patch = _patch(ask.body)
    changed = services.controls.change(ask.organization_id, patch, ask.caller, project_id=_project(ask))
    return _shaped(changed, Controls)


def preview_project_controls(services: Services, ask: Ask[NoQuery, ControlsPatch]) -> Preview:
    """What a change of a project's controls would destroy."""
    return _shaped(services.controls.preview(ask.organization_id, _patch(ask.body), _project(ask)), Preview)


def show_project_retention(services: Services, ask: Ask[NoQuery, NoBody]) -> Retention:
    """OpenAI's label for a project's own controls."""
    return _shaped(labels.label(services.controls, ask.organization_id, _project(ask)), Retention)


def set_project_retention(services: Services, ask: Ask[NoQuery, ProjectRetentionUpdate]) -> Retention:
    """Set OpenAI's label for a project; `organization_default` and `none` drop what the label had set."""
    asked = ask.body.retention_type
    changed = labels.set_label(services.controls, ask.organization_id, asked, ask.caller, _project(ask))
    return _shaped(changed, Retention)


def _project(ask: Ask[Any, Any]) -> Id:
    return ask.id("project_id", Prefix.PROJECT)


def _patch(asked: ControlsPatch) -> Patch:
    switches = (
        (Feature.INFERENCE_LOGGING, asked.inference_logging),
        (Feature.BATCH, asked.batch),
        (Feature.FINE_TUNING, asked.fine_tuning),
    )
    return Patch(
        zero_data_retention=asked.zero_data_retention,
        off={feature: word in ("off", "disabled") for feature, word in switches if word is not None},
        retention_days=asked.retention_days or {},
        expected_epoch=asked.expected_epoch,
        purge=asked.purge,
    )


def _shaped(state: Mapping[str, Any], kind: type[Shape]) -> Shape:
    """Governance's answer in the shape that the API promises: a field that is missing or new shows here."""
    return msgspec.convert(state, kind)
