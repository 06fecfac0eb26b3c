"""Options that many commands share, as decorators: every one of them is spelled the same everywhere.

Holds: `--json`, the options of client commands (`--base-url`, `--admin-key` or `--api-key`) and those of commands that
read stores (`--data-dir`, `--config`).
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import click

from keepless.cli.client import API_KEY, Client
from keepless.cli.output import Screen
from keepless.config import Settings, load

__all__ = ["api_command", "client_command", "output_command", "store_command"]

P = ParamSpec("P")

_JSON = click.option("--json", "as_json", is_flag=True, help="Exactly one JSON object on standard output.")
_BASE_URL = click.option(
    "--base-url",
    envvar="KEEPLESS_BASE_URL",
    default="http://127.0.0.1:8000",
    show_default=True,
    help="Where the server is. [env: KEEPLESS_BASE_URL]",
)


def output_command(function: Callable[Concatenate[Screen, P], None]) -> Callable[..., None]:
    """A command that only speaks: it is given a `Screen`."""

    @_JSON
    @functools.wraps(function)
    def command(*args: Any, as_json: bool, **kwargs: Any) -> None:
        function(Screen(as_json), *args, **kwargs)

    return command


def client_command(function: Callable[Concatenate[Screen, Client, P], None]) -> Callable[..., None]:
    """A command that asks a running server: it is given a `Screen` and a `Client`."""

    @_JSON
    @_BASE_URL
    @click.option(
        "--admin-key", envvar="KEEPLESS_ADMIN_KEY", help="An admin or operator key. [env: KEEPLESS_ADMIN_KEY]"
    )
    @functools.wraps(function)
    def command(*args: Any, as_json: bool, base_url: str, admin_key: str | None, **kwargs: Any) -> None:
        function(Screen(as_json), Client(base_url, admin_key), *args, **kwargs)

    return command


def api_command(function: Callable[Concatenate[Screen, Client, P], None]) -> Callable[..., None]:
    """A command that asks a running server as a developer does: it is given a `Screen` and a `Client`."""

    @_JSON
    @_BASE_URL
    @click.option("--api-key", envvar="KEEPLESS_API_KEY", help="An API key. [env: KEEPLESS_API_KEY]")
    @functools.wraps(function)
    def command(*args: Any, as_json: bool, base_url: str, api_key: str | None, **kwargs: Any) -> None:
        function(Screen(as_json), Client(base_url, api_key, API_KEY), *args, **kwargs)

    return command


def store_command(function: Callable[Concatenate[Screen, Settings, P], None]) -> Callable[..., None]:
    """A command that reads the stores itself: it is given a `Screen` and the settings."""

    @_JSON
    @click.option("--data-dir", help="The data folder. [env: KEEPLESS_DATA_DIR]")
    @click.option(
        "--config", type=click.Path(path_type=Path, dir_okay=False), help="keepless.toml; it wins over defaults."
    )
    @functools.wraps(function)
    def command(*args: Any, as_json: bool, data_dir: str | None, config: Path | None, **kwargs: Any) -> None:
        function(Screen(as_json), load(config, data_dir=data_dir), *args, **kwargs)

    return command
