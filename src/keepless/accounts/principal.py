"""Who calls, as immutable values that the request path reads without any look-up.

Holds: `Limits`, `OrganizationState`, `ProjectState`, `Principal`, `AdminPrincipal`, `PolicyInForce`. They are built
by the lease (from the database) and replaced as a whole when something changes; a request that holds one sees one
consistent policy.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from keepless.accounts.roles import Role
from keepless.ids import Id
from keepless.policy.controls import Controls, Effective

__all__ = ["AdminPrincipal", "Limits", "OrganizationState", "PolicyInForce", "Principal", "ProjectState"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Rate limits; None = not set."""

    requests_per_minute: int | None = None
    requests_per_day: int | None = None
    tokens_per_minute: int | None = None

    @property
    def none_set(self) -> bool:
        """Whether there is nothing to count."""
        return self.requests_per_minute is None and self.requests_per_day is None and self.tokens_per_minute is None


@dataclass(frozen=True, slots=True)
class OrganizationState:
    """One organization as the request path needs it. `region`: pinned to, None = anywhere."""

    id: Id
    epoch: int
    controls: Controls
    limits: Limits
    region: str | None


@dataclass(frozen=True, slots=True)
class ProjectState:
    """One project with the policy in force for it, already folded."""

    id: Id
    controls: Controls
    effective: Effective
    limits: Limits
    model_limits: Mapping[str, Limits] | None = None  # of single models; None = of none


@dataclass(frozen=True, slots=True)
class Principal:
    """What an API key stands for."""

    key_id: Id
    organization: OrganizationState
    project: ProjectState


@dataclass(frozen=True, slots=True)
class AdminPrincipal:
    """Who administers: an admin key, an operator key (`organization_id` None) or a signed-in member.

    Until `loosen_until_ms` (Unix ms) it may loosen data controls; None = it may not (DECISIONS 7).
    """

    id: Id
    organization_id: Id | None
    role: Role
    loosen_until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class PolicyInForce:
    """What `policy.decide` needs of one project, from one reading: what is in force and under which epoch."""

    effective: Effective
    epoch: int
