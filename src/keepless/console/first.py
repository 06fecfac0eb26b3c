"""The first page: where the organization stands, a first key and a first request, and a request explained.

The key is in the answer that created it and in no other. The first request is sent by the visitor's own browser with
that key, as anybody's would be: the console has no way of its own to a model.
"""

from typing import Any, Final

import sqlalchemy as sa

from keepless.accounts.roles import Permission
from keepless.config import Endpoint, Engine, ModelConfig
from keepless.console.paging import offered
from keepless.console.services import Services
from keepless.console.visit import Answer, View, Visit
from keepless.governance.change import not_found
from keepless.governance.explained import explained
from keepless.ids import Id, Prefix
from keepless.vault.tables import kept_total, legal_hold

__all__ = ["create_first_key", "explain", "overview"]

QUESTION: Final = "In one short sentence: what is the capital of France?"


def overview(services: Services, visit: Visit) -> Answer:
    """Where things stand."""
    own = visit.organization_id
    projects = services.organizations.projects(own)
    keys = services.access.api_keys(own) if visit.may(Permission.KEYS_READ) else []
    state = services.controls.state(own)
    return View(
        "overview.html",
        {
            "projects": offered(projects),
            "projects_count": len(projects),
            "keys": len(keys),
            "state": state,
            "kept": _kept(services, own),
            "holds": _holds(services, own),
            "may_create": visit.may(Permission.KEYS_MANAGE) and bool(projects),
        },
    )


def create_first_key(services: Services, visit: Visit) -> Answer:
    """A new key, shown this once, with what to do with it."""
    own, project_id = visit.organization_id, visit.asked_id("project", Prefix.PROJECT)
    if project_id is None:
        raise not_found()
    made = services.access.create_api_key(visit.visitor.principal, own, project_id, name=visit.text("name"))
    model = _model(services)
    base = visit.origin
    values: dict[str, Any] = {
        "made": made,
        "model": model,
        "question": QUESTION,
        "snippets": () if model is None else snippets(base, model),
    }
    return View("new_key.html", values)


def explain(services: Services, visit: Visit) -> Answer:
    """One request: why it was or was not kept."""
    typed = visit.asked("request")
    found = None
    if typed:
        request_id = visit.asked_id("request", Prefix.REQUEST)
        found = None if request_id is None else explained(services.db, request_id, visit.organization_id)
        if found is None:
            raise not_found()
    return View("explain.html", {"found": found, "typed": typed})


def _kept(services: Services, organization_id: Id) -> tuple[int, int]:
    total = (sa.func.coalesce(sa.func.sum(column), 0) for column in (kept_total.c.objects, kept_total.c.bytes))
    with services.db.read() as tx:
        row = tx.execute(sa.select(*total).where(kept_total.c.organization_id == organization_id)).one()
    return int(row[0]), int(row[1])


def _holds(services: Services, organization_id: Id) -> int:
    query = sa.select(sa.func.count()).select_from(legal_hold)
    own = query.where(legal_hold.c.organization_id == organization_id, legal_hold.c.released_at.is_(None))
    with services.db.read() as tx:
        return tx.execute(own).scalar_one()


def _model(services: Services) -> str | None:
    """A model that chats."""
    return next((model.id for model in services.settings.models if _chats(model)), None)


def _chats(model: ModelConfig) -> bool:
    if model.endpoints is not None:
        return Endpoint.CHAT in model.endpoints
    return model.engine in (Engine.LLAMA, Engine.OPENAI)


def snippets(base: str, model: str) -> tuple[tuple[str, str], ...]:
    """The same request in four dialects; the key comes from the environment, where keys belong."""
    return (
        (
            "Python, openai",
            f"""from openai import OpenAI

client = OpenAI(base_url="{base}/v1")  # OPENAI_API_KEY
answer = client.chat.completions.create(
    model="{model}",
    messages=[{{"role": "user", "content": "{QUESTION}"}}],
)
print(answer.choices[0].message.content)""",
        ),
        (
            "Python, groq",
            f"""from groq import Groq

client = Groq(base_url="{base}")  # GROQ_API_KEY
answer = client.chat.completions.create(
    model="{model}",
    messages=[{{"role": "user", "content": "{QUESTION}"}}],
)
print(answer.choices[0].message.content)""",
        ),
        (
            "JavaScript",
            f"""import OpenAI from "openai";

const client = new OpenAI({{ baseURL: "{base}/v1" }}); // OPENAI_API_KEY
const answer = await client.chat.completions.create({{
  model: "{model}",
  messages: [{{ role: "user", content: "{QUESTION}" }}],
}});
console.log(answer.choices[0].message.content);""",
        ),
        (
            "curl",
            f"""curl -i {base}/v1/chat/completions \\
  -H "authorization: Bearer $KEEPLESS_API_KEY" \\
  -H "content-type: application/json" \\
  -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "{QUESTION}"}}]}}\'""",
        ),
    )
