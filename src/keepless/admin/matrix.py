"""THE MATRIX: every route of the admin API, the permission it asks for, and what serves it. Paths are below `/v1`.

Holds: `ENDPOINTS`. Which role has which permission stands in `accounts.roles`; the two tables together say who may do
what, and a test walks over their whole product. A route that is not in this table does not exist.
"""

from typing import Final

from keepless.accounts.roles import Permission
from keepless.admin import (
    accounts,
    audit_logs,
    cases,
    controls,
    erasure,
    holds,
    objects,
    openings,
    people,
    rate_limits,
    receipts,
    service_accounts,
    transfers,
    usage,
    webhooks,
)
from keepless.admin.endpoint import Endpoint, Scope

__all__ = ["ENDPOINTS"]

P: Final = Permission
E: Final = Endpoint
_PROJECT: Final = "/organization/projects/{project_id}"
_KEYS: Final = _PROJECT + "/api_keys"
_ACCOUNTS: Final = _PROJECT + "/service_accounts"
_USERS: Final = "/organization/users"
_INVITES: Final = "/organization/invites"
_ADMIN_KEYS: Final = "/organization/admin_api_keys"
_CONTROLS: Final = "/organization/data_controls"
_OBJECTS: Final = "/organization/retained_objects"
_HOLDS: Final = "/organization/legal_holds"
_HOOKS: Final = "/webhook_endpoints"
_CASES: Final = "/organization/abuse_cases"
_CAPTURES: Final = "/organization/captures"
_OPENINGS: Final = "/organization/open_requests"
_USAGE: Final = "/organization/usage"
_ALL: Final = Scope.PLATFORM
_NAMED: Final = Scope.NAMED

ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    # data controls
    E("GET", _CONTROLS, P.CONTROLS_READ, controls.show_controls),
    E("POST", _CONTROLS, P.CONTROLS_CHANGE, controls.change_controls),
    E("POST", _CONTROLS + "/preview", P.CONTROLS_READ, controls.preview_controls),
    E("GET", "/organization/data_retention", P.CONTROLS_READ, controls.show_retention),
    E("POST", "/organization/data_retention", P.CONTROLS_CHANGE, controls.set_retention),
    E("GET", _PROJECT + "/data_controls", P.CONTROLS_READ, controls.show_project_controls),
    E("POST", _PROJECT + "/data_controls", P.CONTROLS_CHANGE, controls.change_project_controls),
    E("POST", _PROJECT + "/data_controls/preview", P.CONTROLS_READ, controls.preview_project_controls),
    E("GET", _PROJECT + "/data_retention", P.CONTROLS_READ, controls.show_project_retention),
    E("POST", _PROJECT + "/data_retention", P.CONTROLS_CHANGE, controls.set_project_retention),
    # what is kept, and its end
    E("GET", _OBJECTS, P.OBJECTS_LIST, objects.list_objects),
    E("GET", _OBJECTS + "/{id}", P.OBJECTS_LIST, objects.one_object),
    E("DELETE", _OBJECTS + "/{id}", P.OBJECTS_DELETE, objects.delete_object),
    E("GET", "/organization/purges/{id}", P.CONTROLS_READ, objects.show_purge),
    E("GET", "/organization/receipts", P.RECEIPTS_READ, receipts.list_receipts),
    E("GET", "/organization/receipts/{id}", P.RECEIPTS_READ, receipts.receipt_file),
    E("GET", "/organization/transfers", P.CONTROLS_READ, transfers.show_transfers),
    # who did what
    E("GET", "/organization/audit_logs", P.AUDIT_READ, audit_logs.list_audit_logs, _NAMED),
    E("GET", "/organization/audit_logs/export", P.AUDIT_READ, audit_logs.export_audit_logs, _NAMED),
    E("DELETE", "/organization/audit_logs/{id}", P.RECORDS_ERASE, erasure.erase_audit_log, _NAMED),
    # legal holds
    E("GET", _HOLDS, P.HOLDS_READ, holds.list_holds, _NAMED),
    E("POST", _HOLDS, P.HOLDS_PLACE, holds.place_hold, _NAMED),
    E("GET", _HOLDS + "/{id}", P.HOLDS_READ, holds.one_hold, _NAMED),
    E("DELETE", _HOLDS + "/{id}", P.HOLDS_PLACE, holds.release_hold, _NAMED),
    E("DELETE", _HOLDS + "/{id}/reference", P.RECORDS_ERASE, erasure.erase_hold_reference, _NAMED),
    # abuse cases
    E("GET", _CASES, P.CASES_READ, cases.list_cases, _NAMED),
    E("GET", _CASES + "/{id}", P.CASES_READ, cases.one_case, _NAMED),
    E("POST", _CASES + "/{id}/confirm", P.CASES_DECIDE, cases.confirm_case, _NAMED),
    E("POST", _CASES + "/{id}/extend", P.CASES_DECIDE, cases.extend_case, _NAMED),
    E("POST", _CASES + "/{id}/close", P.CASES_DECIDE, cases.close_case, _NAMED),
    E("DELETE", _CASES + "/{id}/reference", P.RECORDS_ERASE, erasure.erase_case_reference, _NAMED),
    # captured requests, and who may see their content
    E("GET", _CAPTURES, P.CAPTURES_READ, objects.captures, _NAMED),
    E("GET", _CAPTURES + "/{id}", P.CAPTURES_READ, objects.one_capture, _NAMED),
    E("DELETE", _CAPTURES + "/{id}", P.OBJECTS_DELETE, objects.delete_capture),
    E("GET", _CAPTURES + "/{id}/open_requests", P.OPENINGS_READ, openings.open_requests_of_capture, _NAMED),
    E("POST", _CAPTURES + "/{id}/open_requests", P.OPENINGS_DECIDE, openings.create_open_request, _NAMED),
    E("GET", _CAPTURES + "/{id}/content", P.OPENINGS_DECIDE, openings.capture_content, _NAMED),
    E("GET", _OPENINGS, P.OPENINGS_READ, openings.list_open_requests, _NAMED),
    E("GET", _OPENINGS + "/{id}", P.OPENINGS_READ, openings.one_open_request, _NAMED),
    E("POST", _OPENINGS + "/{id}/approve", P.OPENINGS_DECIDE, openings.approve_open_request, _NAMED),
    E("POST", _OPENINGS + "/{id}/refuse", P.OPENINGS_DECIDE, openings.refuse_open_request, _NAMED),
    E("POST", _OPENINGS + "/{id}/end", P.OPENINGS_DECIDE, openings.end_open_request, _NAMED),
    E("DELETE", _OPENINGS + "/{id}/reference", P.RECORDS_ERASE, erasure.erase_open_request_reference, _NAMED),
    # usage
    E("GET", _USAGE + "/completions", P.USAGE_READ, usage.usage_completions),
    E("GET", _USAGE + "/embeddings", P.USAGE_READ, usage.usage_embeddings),
    E("GET", _USAGE + "/audio_speeches", P.USAGE_READ, usage.usage_audio_speeches),
    E("GET", _USAGE + "/audio_transcriptions", P.USAGE_READ, usage.usage_audio_transcriptions),
    E("GET", _USAGE + "/images", P.USAGE_READ, usage.usage_images),
    E("GET", _USAGE + "/moderations", P.USAGE_READ, usage.usage_moderations),
    E("GET", _USAGE + "/vector_stores", P.USAGE_READ, usage.usage_vector_stores),
    E("GET", _USAGE + "/code_interpreter_sessions", P.USAGE_READ, usage.usage_code_interpreter_sessions),
    E("GET", _USAGE + "/file_search_calls", P.USAGE_READ, usage.usage_file_search_calls),
    E("GET", _USAGE + "/web_search_calls", P.USAGE_READ, usage.usage_web_search_calls),
    E("GET", _USAGE + "/decisions", P.USAGE_READ, usage.usage_decisions),
    E("GET", "/organization/costs", P.USAGE_READ, usage.usage_costs),
    E("GET", "/organization/explain/{id}", P.USAGE_READ, usage.explain_request),
    # accounts
    E("GET", "/organization/limits", P.PROJECTS_READ, accounts.show_limits),
    E("POST", "/organization/limits", P.ORGANIZATIONS_MANAGE, accounts.set_limits, _NAMED),
    E("GET", "/organization/projects", P.PROJECTS_READ, accounts.list_projects),
    E("POST", "/organization/projects", P.PROJECTS_MANAGE, accounts.create_project),
    E("GET", _PROJECT, P.PROJECTS_READ, accounts.retrieve_project),
    E("POST", _PROJECT, P.PROJECTS_MANAGE, accounts.update_project),
    E("POST", _PROJECT + "/archive", P.PROJECTS_MANAGE, accounts.archive_project),
    E("GET", _PROJECT + "/limits", P.PROJECTS_READ, accounts.show_project_limits),
    E("POST", _PROJECT + "/limits", P.PROJECTS_MANAGE, accounts.set_project_limits),
    E("GET", _PROJECT + "/rate_limits", P.PROJECTS_READ, rate_limits.list_rate_limits),
    E("POST", _PROJECT + "/rate_limits/{rate_limit_id}", P.PROJECTS_MANAGE, rate_limits.update_rate_limit),
    E("GET", _KEYS, P.KEYS_READ, accounts.list_api_keys),
    E("POST", _KEYS, P.KEYS_MANAGE, accounts.create_api_key),
    E("GET", _KEYS + "/{key_id}", P.KEYS_READ, accounts.retrieve_api_key),
    E("POST", _KEYS + "/{key_id}", P.KEYS_MANAGE, accounts.update_api_key),
    E("DELETE", _KEYS + "/{key_id}", P.KEYS_MANAGE, accounts.delete_api_key),
    E("GET", _ACCOUNTS, P.KEYS_READ, service_accounts.list_service_accounts),
    E("POST", _ACCOUNTS, P.KEYS_MANAGE, service_accounts.create_service_account),
    E("GET", _ACCOUNTS + "/{key_id}", P.KEYS_READ, service_accounts.retrieve_service_account),
    E("POST", _ACCOUNTS + "/{key_id}", P.KEYS_MANAGE, service_accounts.update_service_account),
    E("DELETE", _ACCOUNTS + "/{key_id}", P.KEYS_MANAGE, service_accounts.delete_service_account),
    E("GET", _ADMIN_KEYS, P.ADMIN_KEYS_MANAGE, accounts.list_admin_keys),
    E("POST", _ADMIN_KEYS, P.ADMIN_KEYS_MANAGE, accounts.create_admin_key),
    E("GET", _ADMIN_KEYS + "/{key_id}", P.ADMIN_KEYS_MANAGE, accounts.retrieve_admin_key),
    E("DELETE", _ADMIN_KEYS + "/{key_id}", P.ADMIN_KEYS_MANAGE, accounts.delete_admin_key),
    E("GET", _USERS, P.MEMBERS_MANAGE, people.list_users),
    E("POST", _USERS, P.MEMBERS_MANAGE, accounts.create_member),
    E("GET", _USERS + "/{user_id}", P.MEMBERS_MANAGE, people.retrieve_user),
    E("POST", _USERS + "/{user_id}", P.MEMBERS_MANAGE, people.update_user),
    E("POST", _USERS + "/{user_id}/sign_in_link", P.MEMBERS_MANAGE, people.create_sign_in_link),
    E("DELETE", _USERS + "/{user_id}", P.MEMBERS_MANAGE, accounts.delete_member),
    E("GET", _PROJECT + "/users", P.MEMBERS_MANAGE, people.list_project_users),
    E("GET", _PROJECT + "/users/{user_id}", P.MEMBERS_MANAGE, people.retrieve_project_user),
    E("GET", _INVITES, P.MEMBERS_MANAGE, people.list_invites),
    E("POST", _INVITES, P.MEMBERS_MANAGE, people.create_invite),
    E("GET", _INVITES + "/{invite_id}", P.MEMBERS_MANAGE, people.retrieve_invite),
    E("DELETE", _INVITES + "/{invite_id}", P.MEMBERS_MANAGE, people.delete_invite),
    # webhooks
    E("GET", "/webhook_event_types", P.WEBHOOKS_READ, webhooks.list_webhook_event_types),
    E("GET", _HOOKS, P.WEBHOOKS_READ, webhooks.list_webhook_endpoints),
    E("POST", _HOOKS, P.WEBHOOKS_MANAGE, webhooks.create_webhook_endpoint),
    E("GET", _HOOKS + "/{id}", P.WEBHOOKS_READ, webhooks.retrieve_webhook_endpoint),
    E("POST", _HOOKS + "/{id}", P.WEBHOOKS_MANAGE, webhooks.update_webhook_endpoint),
    E("DELETE", _HOOKS + "/{id}", P.WEBHOOKS_MANAGE, webhooks.delete_webhook_endpoint),
    E("POST", _HOOKS + "/{id}/rotate_secret", P.WEBHOOKS_MANAGE, webhooks.rotate_webhook_secret),
    E("POST", _HOOKS + "/{id}/test", P.WEBHOOKS_MANAGE, webhooks.test_webhook_endpoint),
    # operators
    E("GET", "/organizations", P.ORGANIZATIONS_MANAGE, accounts.list_organizations, _ALL),
    E("POST", "/organizations", P.ORGANIZATIONS_MANAGE, accounts.create_organization, _ALL),
    E("GET", "/organizations/{organization_id}", P.ORGANIZATIONS_MANAGE, accounts.retrieve_organization, _ALL),
    E("DELETE", "/organizations/{organization_id}", P.ORGANIZATIONS_MANAGE, accounts.delete_organization, _ALL),
)
