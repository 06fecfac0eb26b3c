"""What the admin API stands on: one value, made by the composition root, given to every handler."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from keepless.admin.health import Check, Metric
from keepless.governance.erasure import Erasure
from keepless.governance.governed import Governed
from keepless.governance.sign_in import SignIn
from keepless.webhooks.endpoints import Endpoints

__all__ = ["Services"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Services(Governed):
    """`checks` and `metrics` are asked at every `/readyz` and `/metrics`, in a worker thread."""

    sign_in: SignIn
    erasure: Erasure
    webhooks: Endpoints
    checks: Callable[[], Sequence[Check]]
    metrics: Callable[[], Sequence[Metric]]
