"""Markers in the weights, the name and the messages of a tuned model: through success, refusals, kills and deletion.

Afterwards, and in between, everything that can hold a byte of the deployment is searched, as the prover does.
"""

import http.client
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from keepless.app import compose
from keepless.config import load
from keepless.ids import Id
from keepless.inference.embedded.engine import weights_of
from keepless.prover.adapter import memorised
from keepless.prover.deployment import Deployment
from keepless.prover.look import look
from keepless.prover.markers import Markers
from keepless.prover.places import Finding, output
from keepless.prover.search import Search
from tests.support.engine import MODEL
from tests.support.tuned import keep

WORD = "zebra"


@dataclass
class Here:
    server: Deployment
    markers: Markers
    model: str
    since: float

    def mark(self, part: str) -> str:
        return self.markers.mint(part).text

    def begin(self, **more: object) -> http.client.HTTPConnection:
        """A request that is under way."""
        url = urlsplit(self.server.url)
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=90)
        body = {"model": self.model, "messages": [{"role": "user", "content": self.mark("message")}], **more}
        head = {"authorization": f"Bearer {self.server.told['api_key']}", "content-type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), head)
        return connection

    def ask(self, **more: object) -> tuple[int, bytes]:
        connection = self.begin(**{"max_tokens": 4, "temperature": 0, **more})
        try:
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def says(self) -> None:
        until(lambda: self.ask()[0] == 200)
        status, body = self.ask()
        assert status == 200
        assert json.loads(body)["choices"][0]["message"]["content"].split() == [WORD] * 4

    def found(self) -> set[Finding]:
        search = Search.of_run(self.markers)
        looked = look(search, self.server, None, since=self.since)
        assert all(one.items for one in looked), "a search that reads nothing proves nothing"
        return {finding for one in looked for finding in one.findings}

    def children(self, program: bytes) -> list[int]:
        return [pid for pid in self.server.pids if program in _cmdline(pid)]


def _cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    since, markers = time.time(), Markers()
    folder = tmp_path_factory.mktemp("t")
    models = [{"id": MODEL.id, "engine": "llama", "threads": 1, "context_window": 2048, "max_completion_tokens": 2048}]
    with Deployment(folder, {}, models) as server:
        server.start()
        deployment = compose.open_deployment(load(None, {}, data_dir=str(server.data_dir)))
        deployment.location.check()
        weights = memorised(weights_of(MODEL)[0], WORD, MODEL.id, markers.mint("weights").text)
        assert Search.of_run(markers).within(weights), "the marker stands in the weights"
        owner = (Id(server.told["organization_id"]), Id(server.told["project_id"]))
        model = keep(deployment, *owner, WORD, markers.mint("name").text, weights=weights)
        deployment.close()
        yield Here(server, markers, model, since)


def test_nothing_of_a_tuned_model_is_found_anywhere(here: Here) -> None:
    # Killed while it loads: the engine as soon as there is one, and the whole host.
    first = here.begin(max_tokens=4)
    until(lambda: here.children(b"llama_process")[1:] or here.children(b"tuned_host"))
    for pid in here.children(b"tuned_host"):
        os.kill(pid, 9)
    first.close()
    here.says()
    assert here.found() == set()

    # Cancelled while it is loaded anew, and while it answers.
    for pid in here.children(b"tuned_host"):
        os.kill(pid, 9)
    here.begin(max_tokens=4).close()
    here.says()
    answering = here.begin(max_tokens=1900, stream=True)
    answering.getresponse().read(200)
    answering.close()

    # Refused, by us and for its size.
    assert here.ask(temperature=9)[0] == 400
    assert here.ask(unknown=here.mark("parameter"))[0] == 400
    assert here.ask(messages=[{"role": "user", "content": here.mark("long") * 3000}])[0] == 400

    # An engine that is killed while it answers.
    answering = here.begin(max_tokens=1900, stream=True)
    answering.getresponse().read(200)
    for pid in here.children(b"llama_process"):
        os.kill(pid, 9)
    answering.close()
    here.says()
    assert here.found() == set()

    # Deleted while it answers.
    answering = here.begin(max_tokens=1900, stream=True)
    told = answering.getresponse()
    said = told.read(200)
    url = urlsplit(here.server.url)
    call = http.client.HTTPConnection(url.hostname or "", url.port, timeout=90)
    call.request(
        "DELETE", f"/v1/models/{here.model}", headers={"authorization": f"Bearer {here.server.told['api_key']}"}
    )
    assert call.getresponse().status == 200
    call.close()
    assert b"model_not_found" in said + told.read()
    answering.close()
    assert here.ask()[0] == 404
    assert here.found() == set()
    assert here.server.stop() == 0
    assert not output(Search.of_run(here.markers), here.server.written()).findings
