"""Abuse cases over HTTP: owners see every one that names their keys, operators decide (DECISIONS 4)."""

from keepless.admin.asks import CaseClosing, CaseDecision, CaseExtension, CasesQuery, NoBody, NoQuery, OrganizationQuery
from keepless.admin.endpoint import Ask
from keepless.admin.pages import page, seconds
from keepless.admin.services import Services
from keepless.admin.shapes import AbuseCase, Page
from keepless.governance.cases import CaseRecord
from keepless.ids import Prefix, trusted

__all__ = ["close_case", "confirm_case", "extend_case", "list_cases", "one_case"]


def list_cases(services: Services, ask: Ask[CasesQuery, NoBody]) -> Page[AbuseCase]:
    """Cases of one organization; an operator who names none sees all."""
    asked = ask.query
    after = None if asked.after is None else trusted(asked.after)
    found = services.cases.list(ask.organization, closed=asked.include_closed, after=after, limit=asked.limit + 1)
    return page(found, asked.limit, _shape)


def one_case(services: Services, ask: Ask[OrganizationQuery, NoBody]) -> AbuseCase:
    """One case. Raises `Problem` 404."""
    return _shape(services.cases.get(ask.organization_id, ask.id("id", Prefix.CASE)))


def confirm_case(services: Services, ask: Ask[NoQuery, CaseDecision]) -> AbuseCase:
    """Begin to capture the keys it names, within the caps. Raises `Problem` 400 or 404."""
    return _shape(services.cases.confirm(ask.organization_id, ask.id("id", Prefix.CASE), ask.caller.id))


def extend_case(services: Services, ask: Ask[NoQuery, CaseExtension]) -> AbuseCase:
    """Let captures go on, for a reason. Raises `Problem` 400 or 404."""
    case_id, asked = ask.id("id", Prefix.CASE), ask.body
    return _shape(
        services.cases.extend(ask.organization_id, case_id, ask.caller.id, hours=asked.hours, reference=asked.reference)
    )


def close_case(services: Services, ask: Ask[NoQuery, CaseClosing]) -> AbuseCase:
    """Nothing more is captured for it. Raises `Problem` 400 or 404."""
    case_id = ask.id("id", Prefix.CASE)
    return _shape(services.cases.close(ask.organization_id, case_id, ask.caller.id, ask.body.reason))


def _shape(case: CaseRecord) -> AbuseCase:
    return AbuseCase(
        id=case.id,
        organization_id=case.organization_id,
        state=case.state,
        signal=case.signal,
        refusals=case.refusals,
        key_ids=list(case.key_ids),
        captured=case.captured,
        opened_at=case.opened_at // 1000,
        confirmed_at=seconds(case.confirmed_at),
        confirmed_by=case.confirmed_by,
        capture_until=seconds(case.ends_at),
        extended_at=seconds(case.extended_at),
        extended_by=case.extended_by,
        reference=case.reference or None,
        closed_at=seconds(case.closed_at),
        closed_by=case.closed_by,
        closed_for=case.closed_for,
    )
