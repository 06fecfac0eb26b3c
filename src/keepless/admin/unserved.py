"""OpenAI's administration that is not served here, and why: each of its routes answers 404 in these words.

Holds: `UNSERVED`, by method and path below `/v1`. A test walks over OpenAI's client: each of its methods is a row of
`keepless.admin.matrix` or of this table, and of one of them only. `docs/divergences.md` is made from both.
"""

from collections.abc import Mapping
from typing import Final

__all__ = ["UNSERVED"]

_ORGANIZATION: Final = "/organization"
_PROJECT: Final = "/organization/projects/{project_id}"
_CUSTOM: Final = "/projects/{project_id}"  # where OpenAI has the roles of a project


def _all(path: str, verbs: str = "list create retrieve update delete") -> tuple[str, ...]:
    """The routes of a collection."""
    one = path + "/{id}"
    routes = {
        "list": f"GET {path}",
        "create": f"POST {path}",
        "retrieve": f"GET {one}",
        "update": f"POST {one}",
        "delete": f"DELETE {one}",
    }
    return tuple(routes[verb] for verb in verbs.split())


def _single(path: str, verbs: str = "GET POST DELETE") -> tuple[str, ...]:
    return tuple(f"{verb} {path}" for verb in verbs.split())


_ASSIGNED: Final = "list create retrieve delete"
_FAMILIES: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    (
        "There are no client certificates here: TLS is the business of the server's or its proxy's configuration.",
        (
            *_all(_ORGANIZATION + "/certificates"),
            *_single(_ORGANIZATION + "/certificates/activate", "POST"),
            *_single(_ORGANIZATION + "/certificates/deactivate", "POST"),
            *_all(_PROJECT + "/certificates", "list"),
            *_single(_PROJECT + "/certificates/activate", "POST"),
            *_single(_PROJECT + "/certificates/deactivate", "POST"),
        ),
    ),
    (
        "Keys of customers are not registered by API: the keyring is where the operator's keyring_url says.",
        (
            *_all(_ORGANIZATION + "/external_keys", _ASSIGNED),
            *_single(_ORGANIZATION + "/external_keys/{id}/validate", "POST"),
        ),
    ),
    (
        "Storage is not registered by API: customer data lies where the operator's blobs_url says.",
        (
            *_all(_ORGANIZATION + "/external_storage", _ASSIGNED),
            *_single(_ORGANIZATION + "/external_storage/{id}/validate", "POST"),
        ),
    ),
    (
        "There are no groups here: those of the sign-in provider give roles by the operator's [[oidc.groups]].",
        (
            *_all(_ORGANIZATION + "/groups"),
            *_all(_ORGANIZATION + "/groups/{group_id}/roles", _ASSIGNED),
            *_all(_ORGANIZATION + "/groups/{group_id}/users", _ASSIGNED),
            *_all(_PROJECT + "/groups", _ASSIGNED),
            *_all(_CUSTOM + "/groups/{group_id}/roles", _ASSIGNED),
        ),
    ),
    (
        "There are no roles to be made here: owner, developer, reader and auditor are all, and a member has one.",
        (
            *_all(_ORGANIZATION + "/roles"),
            *_all(_ORGANIZATION + "/users/{user_id}/roles", _ASSIGNED),
            *_all(_CUSTOM + "/roles"),
            *_all(_CUSTOM + "/users/{user_id}/roles", _ASSIGNED),
        ),
    ),
    (
        "Members of single projects are not administered: a member's role holds for every project.",
        _all(_PROJECT + "/users", "create update delete"),
    ),
    (
        "A service account is its one key here: create another account for another key.",
        (f"POST {_PROJECT}/service_accounts/{{id}}/api_keys",),
    ),
    ("There are no hosted tools here to be permitted.", _single(_PROJECT + "/hosted_tool_permissions", "GET POST")),
    ("Every project may ask every model of this deployment.", _single(_PROJECT + "/model_permissions")),
    ("There is one service tier here.", _single(_PROJECT + "/service_tier_settings", "GET POST")),
    (
        "Nothing is charged here, so spending has no limit and no alert: /organization/costs tells what usage costs.",
        (
            *_single(_ORGANIZATION + "/spend_limit"),
            *_all(_ORGANIZATION + "/spend_alerts"),
            *_single(_PROJECT + "/spend_limit"),
            *_all(_PROJECT + "/spend_alerts"),
        ),
    ),
    (
        "Workloads do not exchange identities of other providers here: give them an API key.",
        (
            *_all(_ORGANIZATION + "/workload_identity_providers"),
            *_all(_ORGANIZATION + "/workload_identity_providers/{provider_id}/federation_rules"),
        ),
    ),
)

UNSERVED: Final[Mapping[tuple[str, str], str]] = {
    (method, path): why for why, routes in _FAMILIES for method, _, path in (route.partition(" ") for route in routes)
}
