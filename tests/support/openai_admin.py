"""Every method of the admin part of OpenAI's client, found by walking over it, and what each sends."""

import inspect
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final

import httpx
import openai
from openai._resource import SyncAPIResource

__all__ = ["arguments", "methods", "plain", "surface"]

# One of the forms that a method of several takes.
_FORMS: Final = {
    "external_keys.create": {
        "type": "aws",
        "name": "x",
        "kms_arn": "x",
        "role_arn": "x",
        "external_id": "x",
    }
}


def methods(client: openai.OpenAI) -> Iterator[tuple[str, Callable[..., Any]]]:
    """(name below `client.admin.organization`, method), in the order of names."""
    yield from _walk(client.admin.organization, "")


def _walk(resource: SyncAPIResource, above: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name in sorted(dir(type(resource))):
        if name.startswith(("_", "with_")):
            continue
        found = getattr(resource, name)
        if isinstance(found, SyncAPIResource):
            yield from _walk(found, f"{above}{name}.")
        elif callable(found):
            yield f"{above}{name}", found


def arguments(name: str, method: Callable[..., Any]) -> dict[str, Any]:
    """Something for every argument that must be given: an id is its own name, so that the path shows where it goes."""
    if name in _FORMS:
        return dict(_FORMS[name])
    needed = [p.name for p in inspect.signature(method).parameters.values() if p.default is inspect.Parameter.empty]
    return {one: 1 if one == "start_time" else f"{{{one}}}" for one in needed}


@cache
def surface() -> dict[str, tuple[str, str]]:
    """Name -> (HTTP method, path below `/v1`), ids as `{}`."""
    sent: list[tuple[str, str]] = []

    def refuse(request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/v1")
        sent.append((request.method, plain(path)))
        return httpx.Response(404, json={"error": {"message": "no"}})

    found: dict[str, tuple[str, str]] = {}
    with (
        httpx.Client(transport=httpx.MockTransport(refuse)) as http,
        openai.OpenAI(
            api_key="a", admin_api_key="b", base_url="http://x/v1", http_client=http, max_retries=0
        ) as client,
    ):
        for name, method in methods(client):
            try:
                method(**arguments(name, method))
            except openai.NotFoundError:
                found[name] = sent[-1]
    return found


def plain(path: str) -> str:
    """A path without the names of its ids."""
    return re.sub(r"\{\w+\}", "{}", path)
