"""Who calls, as immutable values that the request path reads without any look-up.

Holds: `Limits`, `OrganizationState`, `ProjectState`, `Principal`. They are built by the lease (from the database) and
replaced as a whole when something changes; a request that holds one sees one consistent policy.
"""

from dataclasses import dataclass

from keepless.ids import Id
from keepless.policy.controls import Controls, Effective

__all__ = ["Limits", "OrganizationState", "Principal", "ProjectState"]


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


@dataclass(frozen=True, slots=True)
class Principal:
    """What an API key stands for."""

    key_id: Id
    organization: OrganizationState
    project: ProjectState
