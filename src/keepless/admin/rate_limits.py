"""OpenAI's rate limits of a project over HTTP: one for each model of this deployment, tighter only.

What is shown is what is in force: the tightest of the model's own limit in the project, the project's and the
organization's, which count for all models together. OpenAI's shape has no null: `NO_LIMIT` says that there is none, and
whoever sets it takes the model's own limit away.
"""

from typing import Final

from keepless.accounts.principal import Limits
from keepless.admin.account_shapes import RateLimit
from keepless.admin.asks import NoBody, NoQuery, RateLimitPatch, RateLimitsQuery
from keepless.admin.endpoint import Ask
from keepless.admin.pages import cut
from keepless.admin.services import Services
from keepless.admin.shapes import Page
from keepless.governance.change import not_found
from keepless.ids import Id, Prefix

__all__ = ["NO_LIMIT", "list_rate_limits", "update_rate_limit"]

NO_LIMIT: Final = 2_147_483_647


def list_rate_limits(services: Services, ask: Ask[RateLimitsQuery, NoBody]) -> Page[RateLimit]:
    """The limits of every model in a project, in the order of the configuration. Raises `Problem` 404."""
    found = _all(services, ask.organization_id, ask.id("project_id", Prefix.PROJECT))
    before = ask.query.before
    if before is None:
        return cut(found, ask.query.after, ask.query.limit, lambda one: one)
    at = next((at for at, one in enumerate(found) if one.id == before), None)
    if at is None:
        raise not_found()
    start = max(0, at - ask.query.limit)
    page = cut(found[start:at], None, ask.query.limit, lambda one: one)
    page.has_more = start > 0
    return page


def update_rate_limit(services: Services, ask: Ask[NoQuery, RateLimitPatch]) -> RateLimit:
    """Limit a model in a project. Raises `Problem` 404, 400 for a limit that would not tighten."""
    project_id, wanted = ask.id("project_id", Prefix.PROJECT), ask.ids["rate_limit_id"]
    model = next((one.id for one in services.settings.models if _id(one.id) == wanted), None)
    if model is None:
        raise not_found()
    asked = ask.body
    changes = {
        "requests_per_minute": asked.max_requests_per_1_minute,
        "requests_per_day": asked.max_requests_per_1_day,
        "tokens_per_minute": asked.max_tokens_per_1_minute,
    }
    services.organizations.limit_model(
        ask.caller,
        ask.organization_id,
        project_id,
        Id(model),
        {name: None if number == NO_LIMIT else number for name, number in changes.items() if number is not None},
    )
    return next(one for one in _all(services, ask.organization_id, project_id) if one.model == model)


def _all(services: Services, organization_id: Id, project_id: Id) -> list[RateLimit]:
    outer, own = services.organizations.limits_of_models(organization_id, project_id)
    return [_shape(model.id, [*outer, own.get(model.id, Limits())]) for model in services.settings.models]


def _shape(model: str, limits: list[Limits]) -> RateLimit:
    return RateLimit(
        id=_id(model),
        model=model,
        max_requests_per_1_minute=_tightest([one.requests_per_minute for one in limits]),
        max_requests_per_1_day=_tightest([one.requests_per_day for one in limits]),
        max_tokens_per_1_minute=_tightest([one.tokens_per_minute for one in limits]),
    )


def _id(model: str) -> str:
    """A model's name, with what would part a path replaced by what no name of a model has."""
    return f"rl-{model.replace('/', '~')}"


def _tightest(numbers: list[int | None]) -> int:
    return min((number for number in numbers if number is not None), default=NO_LIMIT)
