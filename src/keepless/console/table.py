"""THE TABLE of pages: every route of the console, the permission it asks for, and what makes it.

Holds: `ROWS`. Which role has which permission stands in `accounts.roles`; a test walks over the whole product of the
two. A page that is not in this table does not exist. What changes something is a POST.
"""

from typing import Final

from keepless.accounts.roles import Permission
from keepless.console import (
    accounts,
    audit,
    batches,
    captures,
    cases,
    controls,
    exports,
    files,
    first,
    holds,
    kept,
    location,
    platform,
    proofs,
    tunings,
    usage,
)
from keepless.console.visit import Row, Whose

__all__ = ["ROWS"]

P: Final = Permission

ROWS: Final[tuple[Row, ...]] = (
    Row("GET", "/", P.PROJECTS_READ, first.overview),
    Row("POST", "/first/key", P.KEYS_MANAGE, first.create_first_key),
    Row("GET", "/explain", P.USAGE_READ, first.explain),
    # data controls
    Row("GET", "/controls", P.CONTROLS_READ, controls.controls),
    Row("GET", "/controls/review", P.CONTROLS_CHANGE, controls.review),
    Row("POST", "/controls", P.CONTROLS_CHANGE, controls.change),
    Row("GET", "/controls/history", P.CONTROLS_READ, controls.show_history),
    Row("GET", "/purges/{purge_id}", P.CONTROLS_READ, controls.purge),
    Row("GET", "/purges/{purge_id}/progress", P.CONTROLS_READ, controls.purge_part),
    Row("POST", "/exports", P.FILES_EXPORT, exports.export),
    # what is kept, and its end
    Row("GET", "/kept", P.OBJECTS_LIST, kept.kept),
    Row("GET", "/kept/{object_id}", P.OBJECTS_LIST, kept.ask_delete),
    Row("POST", "/kept/{object_id}/delete", P.OBJECTS_DELETE, kept.delete),
    Row("GET", "/receipts", P.RECEIPTS_READ, proofs.receipts),
    Row("GET", "/receipts/{receipt_id}", P.RECEIPTS_READ, proofs.one),
    Row("GET", "/receipts/{receipt_id}/file", P.RECEIPTS_READ, proofs.file),
    Row("GET", "/holds", P.HOLDS_READ, holds.holds, Whose.ANY),
    Row("GET", "/holds/new", P.HOLDS_PLACE, holds.new_hold, Whose.ANY),
    Row("POST", "/holds/new", P.HOLDS_PLACE, holds.place, Whose.ANY),
    Row("GET", "/holds/{hold_id}", P.HOLDS_READ, holds.ask_release, Whose.ANY),
    Row("POST", "/holds/{hold_id}/release", P.HOLDS_PLACE, holds.release, Whose.ANY),
    Row("GET", "/captures", P.CAPTURES_READ, captures.captures, Whose.ANY),
    Row("GET", "/captures/{object_id}", P.CAPTURES_READ, captures.capture, Whose.ANY),
    Row("POST", "/captures/{object_id}/openings", P.OPENINGS_DECIDE, captures.request, Whose.ANY),
    Row("POST", "/openings/{opening_id}/approve", P.OPENINGS_DECIDE, captures.approve, Whose.ANY),
    Row("POST", "/openings/{opening_id}/refuse", P.OPENINGS_DECIDE, captures.refuse, Whose.ANY),
    Row("POST", "/openings/{opening_id}/end", P.OPENINGS_DECIDE, captures.end, Whose.ANY),
    Row("POST", "/openings/{opening_id}/show", P.OPENINGS_DECIDE, captures.show, Whose.ANY),
    Row("GET", "/cases", P.CASES_READ, cases.cases, Whose.ANY),
    Row("GET", "/cases/{case_id}", P.CASES_READ, cases.case, Whose.ANY),
    Row("POST", "/cases/{case_id}/confirm", P.CASES_DECIDE, cases.confirm, Whose.ANY),
    Row("POST", "/cases/{case_id}/extend", P.CASES_DECIDE, cases.extend, Whose.ANY),
    Row("POST", "/cases/{case_id}/close", P.CASES_DECIDE, cases.close, Whose.ANY),
    Row("GET", "/platform", P.ORGANIZATIONS_MANAGE, platform.platform, Whose.ANY),
    Row("GET", "/location", P.CONTROLS_READ, location.location),
    Row("GET", "/location/record", P.CONTROLS_READ, location.record),
    Row("GET", "/location/document", P.CONTROLS_READ, location.document),
    Row("GET", "/usage", P.USAGE_READ, usage.usage),
    Row("GET", "/usage/table", P.USAGE_READ, usage.table),
    Row("GET", "/audit", P.AUDIT_READ, audit.audit, Whose.ANY),
    Row("GET", "/audit/export", P.AUDIT_READ, audit.export, Whose.ANY),
    Row("GET", "/audit/{index}/proof", P.AUDIT_READ, audit.proof, Whose.ANY),
    # files and batches
    Row("GET", "/files", P.FILES_READ, files.files),
    Row("GET", "/files/{file_id}/content", P.FILES_MANAGE, files.content),
    Row("GET", "/files/{file_id}/delete", P.FILES_MANAGE, files.ask_delete),
    Row("POST", "/files/{file_id}/delete", P.FILES_MANAGE, files.delete),
    Row("GET", "/batches", P.FILES_READ, batches.batches),
    Row("POST", "/batches", P.FILES_MANAGE, batches.begin),
    Row("GET", "/batches/part", P.FILES_READ, batches.batches_part),
    Row("GET", "/batches/{batch_id}/cancel", P.FILES_MANAGE, batches.ask_cancel),
    Row("POST", "/batches/{batch_id}/cancel", P.FILES_MANAGE, batches.cancel),
    Row("GET", "/fine-tunings", P.FILES_READ, tunings.tunings),
    Row("POST", "/fine-tunings", P.FILES_MANAGE, tunings.begin),
    Row("GET", "/fine-tunings/{job_id}", P.FILES_READ, tunings.tuning),
    Row("GET", "/fine-tunings/{job_id}/part", P.FILES_READ, tunings.tuning_part),
    Row("POST", "/fine-tunings/{job_id}/pause", P.FILES_MANAGE, tunings.pause),
    Row("POST", "/fine-tunings/{job_id}/resume", P.FILES_MANAGE, tunings.resume),
    Row("POST", "/fine-tunings/{job_id}/cancel", P.FILES_MANAGE, tunings.cancel),
    Row("GET", "/fine-tunings/{job_id}/delete", P.FILES_MANAGE, tunings.ask_delete),
    Row("POST", "/fine-tunings/{job_id}/delete", P.FILES_MANAGE, tunings.delete),
    # accounts
    Row("GET", "/projects", P.PROJECTS_READ, accounts.projects),
    Row("POST", "/projects", P.PROJECTS_MANAGE, accounts.create_project),
    Row("GET", "/projects/{project_id}", P.PROJECTS_READ, accounts.project),
    Row("POST", "/projects/{project_id}/rename", P.PROJECTS_MANAGE, accounts.rename_project),
    Row("POST", "/projects/{project_id}/limits", P.PROJECTS_MANAGE, accounts.set_limits),
    Row("GET", "/projects/{project_id}/archive", P.PROJECTS_MANAGE, accounts.ask_archive),
    Row("POST", "/projects/{project_id}/archive", P.PROJECTS_MANAGE, accounts.archive_project),
    Row("GET", "/keys", P.KEYS_READ, accounts.keys),
    Row("POST", "/keys/admin", P.ADMIN_KEYS_MANAGE, accounts.create_admin_key),
    Row("GET", "/keys/{key_id}/revoke", P.KEYS_MANAGE, accounts.ask_revoke),
    Row("POST", "/keys/{key_id}/revoke", P.KEYS_MANAGE, accounts.revoke_key),
    Row("GET", "/members", P.MEMBERS_MANAGE, accounts.members),
    Row("POST", "/members", P.MEMBERS_MANAGE, accounts.add_member),
    Row("POST", "/members/invites", P.MEMBERS_MANAGE, accounts.invite),
    Row("POST", "/members/invites/{invite_id}/revoke", P.MEMBERS_MANAGE, accounts.revoke_invite),
    Row("POST", "/members/{member_id}/role", P.MEMBERS_MANAGE, accounts.change_role),
    Row("GET", "/members/{member_id}/remove", P.MEMBERS_MANAGE, accounts.ask_remove),
    Row("POST", "/members/{member_id}/remove", P.MEMBERS_MANAGE, accounts.remove_member),
)
