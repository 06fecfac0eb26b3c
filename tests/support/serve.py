"""`keepless serve` as users run it: a process of its own on a free port, with the models a test wants."""

import atexit
import contextlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tests.support.upstream import Behaviour

OF_THE_FIRST_START = {"database_url", "keyring", "log_origin", "blobs_url", "location_region"}  # settings
WAITING = {Behaviour.NEVER, Behaviour.SLOW_HEAD, Behaviour.SLOW_IDLE}
EMBEDDED: dict[str, Any] = {"id": "smollm2-135m-instruct", "engine": "llama", "threads": 1}


@dataclass
class Served:
    """A running server and the keys that its first start printed."""

    process: subprocess.Popen[str]
    url: str
    told: Mapping[str, str]
    log: list[str]

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def api_key(self) -> str:
        return self.told["api_key"]

    def ask(self, method: str, path: str, body: object = None, *, key: str = "admin_key") -> Any:
        """One call below `/v1`, which must succeed."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"authorization": f"Bearer {self.told.get(key, key)}"}
        request = urllib.request.Request(self.base_url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


def upstream_models(base_url: str, **more: Any) -> list[dict[str, Any]]:
    """One model for each behaviour of the mock upstream, named after it; quick to lose patience with one that waits.

    The others are given all the time that a busy machine may take: what is slow there is the test, not the upstream.
    """
    made = {"engine": "openai", "base_url": base_url, "retention": "zero", "connect_timeout": 2.0}
    patience = {which: 1.0 if which in WAITING else 30.0 for which in Behaviour}
    return [
        {"id": which.value, **made, "first_byte_timeout": seconds, "idle_timeout": seconds, **more}
        for which, seconds in patience.items()
    ]


def toml(models: Sequence[Mapping[str, Any]], settings: Mapping[str, Any] | None = None) -> str:
    """A `keepless.toml`. JSON's texts, numbers and booleans are TOML's too."""
    lines = [f"{name} = {_inline(value)}" for name, value in (settings or {}).items()]
    for model in models:
        plain = {name: value for name, value in model.items() if name != "upstreams"}
        for title, table in [("models", plain), *(("models.upstreams", one) for one in model.get("upstreams", ()))]:
            lines += [f"[[{title}]]", *(f"{name} = {json.dumps(value)}" for name, value in table.items())]
    return "\n".join(lines) + "\n"


def _inline(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    if not isinstance(value, dict):
        return json.dumps(value)
    return "{" + ", ".join(f"{name} = {_inline(inner)}" for name, inner in value.items()) + "}"


@contextlib.contextmanager
def serve(
    folder: Path,
    models: Sequence[Mapping[str, Any]],
    *options: str,
    settings: Mapping[str, Any] | None = None,
    under: Sequence[str] = (),
    known: Mapping[str, str] | None = None,
    fresh: bool = False,
) -> Iterator[Served]:
    """A server for the time of a `with`; it must end by itself on SIGTERM.

    `under`: a command to run it under. `known`: what an earlier start on this folder told. `fresh`: its first start
    makes the first organization itself, and tells a link to sign in; else it finds one, in half the time.
    """
    if not (fresh or under or (folder / "data").exists() or OF_THE_FIRST_START & set(settings or {})):
        made, told_then = _made()
        shutil.copytree(made, folder / "data")
        known = {**told_then, **(known or {})}
    config = folder / "keepless.toml"
    config.write_text(toml(models, settings), "utf-8")
    command = [sys.executable, "-m", "keepless", "serve", "--json", "--port", "0", "--config", str(config)]
    process = subprocess.Popen(
        [*under, *command, "--data-dir", str(folder / "data"), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    log: list[str] = []
    assert process.stdout is not None
    assert process.stderr is not None
    reader = threading.Thread(target=log.extend, args=(process.stderr,), daemon=True)
    reader.start()
    try:
        first = process.stdout.readline()
        assert first, f"the server did not start: {''.join(log)}"
        told = json.loads(first)
        assert "url" in told, told
        yield Served(process, told["url"], {**(known or {}), **told}, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        finally:
            process.kill()
            process.wait()
            reader.join(5)
            process.stdout.close()
            process.stderr.close()


@lru_cache(1)
def _made() -> tuple[Path, dict[str, str]]:
    """A data folder as the first start leaves it, and what that told but for the link, which ends."""
    folder = Path(tempfile.mkdtemp(prefix="keepless-made-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    command = [sys.executable, "-m", "keepless", "init", "--json", "--data-dir", str(folder / "data")]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return folder / "data", {name: value for name, value in told.items() if not name.startswith("sign_in")}
