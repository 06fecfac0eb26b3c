"""A deployment as outsiders meet it: HTTP on a socket, `keepless` on the command line, nothing of ours in between."""

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ASK: list[dict[str, str]] = [{"role": "user", "content": "Say hello."}]


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def kept(self) -> str:
        """What the answer says was kept."""
        return self.headers["x-keepless-retention"]

    @property
    def object_id(self) -> str:
        """The object that the answer names."""
        return self.kept.split("object=")[1].split(";")[0]


def call(url: str, method: str, path: str, key: str, body: object = None, **headers: str) -> Answer:
    """One request on a connection of its own. `body`: bytes as they are, anything else as JSON."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    try:
        connection.request(method, path, data, {"authorization": f"Bearer {key}", **headers})
        answer = connection.getresponse()
        return Answer(answer.status, {n.lower(): v for n, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


@dataclass(frozen=True)
class Organization:
    """One customer of a running server."""

    url: str
    id: str
    project_id: str
    api_key: str
    admin_key: str

    @classmethod
    def of(cls, url: str, told: Mapping[str, str]) -> "Organization":
        """From what the first start told, or what creating one answered."""
        names = ("organization_id", "project_id", "api_key", "admin_key")
        return cls(url, *(told[name] for name in names))

    def chat(self, model: str, text: str = "hello", key: str | None = None, **more: Any) -> Answer:
        body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
        return call(self.url, "POST", "/v1/chat/completions", key or self.api_key, body)

    def admin(self, method: str, path: str, body: object = None, key: str | None = None) -> Answer:
        """A call below `/v1/organization`."""
        return call(self.url, method, f"/v1/organization{path}", key or self.admin_key, body)

    def retained(self) -> dict[str, Any]:
        """What is kept, by id."""
        listed = self.admin("GET", "/retained_objects?limit=100").json
        assert not listed["has_more"]
        return {item["id"]: item for item in listed["data"]}

    def counted(self) -> int:
        """Requests in `usage/completions` of the last hours."""
        page = self.admin("GET", f"/usage/completions?start_time={int(time.time()) - 7200}&bucket_width=1d").json
        return sum(result["num_model_requests"] for bucket in page["data"] for result in bucket["results"])

    def keepless(self, *arguments: str, key: str | None = None) -> tuple[int, Any]:
        """A client command as this organization's owner (or with another key)."""
        return keepless(*arguments, KEEPLESS_BASE_URL=self.url, KEEPLESS_ADMIN_KEY=key or self.admin_key)


def another(url: str, operator_key: str, name: str = "Another") -> Organization:
    """A further organization."""
    made = call(url, "POST", "/v1/organizations", operator_key, {"name": name})
    assert made.status == 200, made.body
    answer = made.json
    return Organization.of(url, {"organization_id": answer["id"], **answer})


def keepless(*arguments: str, under: Sequence[str] = (), **environment: str) -> tuple[int, Any]:
    """A command as users run it: its exit code and the one JSON object it says."""
    done = subprocess.run(
        [*under, sys.executable, "-m", "keepless", *arguments, "--json"],
        capture_output=True,
        check=False,
        text=True,
        timeout=100,
        env={**os.environ, **environment},
    )
    assert done.stdout.count("\n") == 1, (done.stdout, done.stderr)
    return done.returncode, json.loads(done.stdout)


def at_another_time(offset: str) -> list[str]:
    """A command to run a server under, whose wall clock differs (only that one, or its threads would never wake up).

    Unlike `faketime` it makes no process between the server and whoever ends it.
    """
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    return ["env", f"LD_PRELOAD={library}", f"FAKETIME={offset}", "FAKETIME_DONT_FAKE_MONOTONIC=1"]


def comes_true(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until it holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.05)


def files(folder: Path) -> Iterator[Path]:
    """Every file below a folder that is there while one looks."""
    return (path for path in folder.rglob("*") if path.is_file())


def holding(folder: Path, marker: bytes) -> list[Path]:
    """The files of a folder that hold these bytes."""
    return [path for path in files(folder) if marker in path.read_bytes()]
