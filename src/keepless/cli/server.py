"""The server as `keepless serve` runs it: it says where it serves, and on the first start what was made.

Holds: `main`. Leaves out: options (serving), serving itself (app.serve). What is imported here stays in memory for
months: a test names what must not be.
"""

import json
import sys
from collections.abc import Mapping
from typing import Final

from keepless.app.serve import serve
from keepless.cli.first_request import first_request
from keepless.config import Settings

__all__ = ["main"]

_TOLD: Final = (
    ("api_key", "API key"),
    ("admin_key", "admin key"),
    ("operator_key", "operator key"),
    ("owner_email", "owner"),
    ("owner_password", "password"),
    ("sign_in", "sign in once"),
)


def main(settings: Settings, *, as_json: bool, works: bool) -> int:
    """Serve until a signal comes; the exit code. Raises as `serve` does."""

    def announce(told: Mapping[str, str]) -> None:
        _print(json.dumps(told) if as_json else _announcement(told))
        if "api_key" in told and not as_json:
            _print(first_request(told["url"], told["api_key"], settings.models[0].id))

    return serve(settings, announce=announce, works=works)


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _announcement(told: Mapping[str, str]) -> str:
    url = told["url"]
    lines = [
        "Keepless is serving. It keeps nothing it does not have to.",
        f"  base URL      {url}/v1  (openai, groq: {url}/openai/v1, {url})",
        f"  console       {url}/",
        *(f"  {label:<13} {told[name]}" for name, label in _TOLD if name in told),
    ]
    if "api_key" in told:
        lines.append(
            "The keys, the password and the link (15 minutes) are shown this once. Later: keepless keys create"
        )
    return "\n".join(lines)
