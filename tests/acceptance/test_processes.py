"""Ends and deaths of processes, and changes of policy under traffic, from outside: what was answered is counted, what
was promised holds."""

import contextlib
import os
import resource
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest

from tests.support.outside import Answer, Organization, another, comes_true
from tests.support.serve import EMBEDDED, Served, serve, upstream_models
from tests.support.upstream import Behaviour, MockUpstream

CLIENTS = 4
MANY = [f"failing-{number}" for number in range(40)]  # models, each with an allowance of five captures an hour


@pytest.fixture(scope="module")
def upstream() -> Iterator[MockUpstream]:
    with MockUpstream(delay_s=3.0) as mock:
        for model in MANY:
            mock.set(model, Behaviour.ERROR_500)
        yield mock


@pytest.fixture(scope="module")
def models(upstream: MockUpstream) -> list[dict[str, Any]]:
    like = upstream_models(upstream.base_url)
    logging = [{**like[0], "id": name, "retention": "logs_30d"} for name in ("logging", "slow-stream")]
    return [like[0], *logging, *({**like[0], "id": model} for model in MANY)]


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory, models: list[dict[str, Any]]) -> Iterator[Served]:
    """Four processes; each test has a customer of its own."""
    with serve(tmp_path_factory.mktemp("four"), models, "--workers", "4") as served:
        yield served


@dataclass
class Traffic:
    """Clients that ask without a pause until they are told to end; what they were answered, with begin and end."""

    ask: Callable[[int], Answer]
    answers: list[tuple[float, float, Answer]] = field(default_factory=list)
    failures: int = 0

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()
        return self

    def _run(self, number: int) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                answer = self.ask(number)
            except (OSError, ValueError, IndexError):  # the connection was refused or cut
                self.failures += 1
                self._stop.wait(0.05)
                continue
            self.answers.append((began, time.monotonic(), answer))

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)


def request_ids(folder: Path) -> Counter[str]:
    with contextlib.closing(sqlite3.connect(folder / "data" / "keepless.sqlite")) as db:
        return Counter(row[0] for row in db.execute("SELECT request_id FROM usage"))


def children(process: int) -> set[int]:
    """The processes that a process has started."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, rest = path.read_text("ascii", "replace").rpartition(") ")
            if int(rest.split()[1]) == process:
                found.add(int(name.split()[0]))
    return found


# -- ends ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["1", "3"])
def test_an_orderly_end_loses_no_usage_row(tmp_path: Path, models: list[dict[str, Any]], workers: str) -> None:
    with serve(tmp_path, models, "--workers", workers) as served:
        customer = Organization.of(served.url, served.told)
        with Traffic(lambda _: customer.chat("ok")) as traffic:
            comes_true(lambda: len(traffic.answers) > 100)
            served.process.send_signal(signal.SIGTERM)
            assert served.process.wait(30) == 0
    answered = [answer.headers["x-request-id"] for _, _, answer in traffic.answers]
    rows = request_ids(tmp_path)
    assert {answer.status for _, _, answer in traffic.answers} == {200}
    assert [one for one in answered if rows[one] != 1] == [], "one row each, for every request that was answered"


def test_a_sudden_end_loses_the_last_second_at_most(tmp_path: Path, models: list[dict[str, Any]]) -> None:
    with serve(tmp_path, models) as served:
        told, customer = served.told, Organization.of(served.url, served.told)
        with Traffic(lambda _: (time.sleep(0.02), customer.chat("ok"))[1]) as traffic:
            comes_true(lambda: traffic.answers and traffic.answers[-1][1] - traffic.answers[0][0] > 3)
            killed = time.monotonic()
            served.process.kill()
            served.process.wait()
    before = [answer.headers["x-request-id"] for _, ended, answer in traffic.answers if ended < killed - 1]
    with serve(tmp_path, models, known=told) as served:
        again = Organization.of(served.url, told)
        assert again.chat(MANY[0]).kept.startswith("class=")
        rows = request_ids(tmp_path)
    assert len(before) > 20
    assert [one for one in before if rows[one] != 1] == []


# -- deaths ----------------------------------------------------------------------------------------------------------


def test_a_worker_that_dies_is_replaced(tmp_path: Path, models: list[dict[str, Any]]) -> None:
    with serve(tmp_path, models, "--workers", "3") as served:
        customer = Organization.of(served.url, served.told)
        first = children(served.process.pid)
        assert len(first) == 3
        with Traffic(lambda _: customer.chat("ok")) as traffic:
            os.kill(min(first), signal.SIGKILL)
            comes_true(lambda: len(children(served.process.pid) - first) == 1)
        assert traffic.answers and {answer.status for _, _, answer in traffic.answers} == {200}
        assert traffic.failures <= CLIENTS, "what was at that worker, and nothing else"
        assert sum("server:worker:died" in line for line in served.log) == 1
        comes_true(lambda: sum("policy:lease:gained" in line for line in served.log) == 4)
        changed = customer.admin("POST", "/data_controls", {"zero_data_retention": True})
        assert changed.status == 200
        assert {customer.chat(model).kept for model in MANY[:12]} == {"none"}


def test_a_server_that_can_start_no_process_at_the_moment_goes_on_and_tries_again(
    tmp_path: Path, models: list[dict[str, Any]]
) -> None:
    with serve(tmp_path, models, "--workers", "2") as served:
        customer = Organization.of(served.url, served.told)
        first = children(served.process.pid)
        before = resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE, (3, before[1]))  # not one more
        os.kill(min(first), signal.SIGKILL)
        comes_true(lambda: sum("server:process:not_started" in line for line in served.log) >= 2)
        assert customer.chat("ok").status == 200
        resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE, before)
        comes_true(lambda: len(children(served.process.pid) - first) == 1)
        comes_true(lambda: sum("policy:lease:gained" in line for line in served.log) == 3)


def test_an_engine_that_dies_is_started_again_and_its_request_is_an_incident(tmp_path: Path) -> None:
    with serve(tmp_path, [EMBEDDED]) as served:
        customer = Organization.of(served.url, served.told)
        answers: list[Answer] = []
        (engine,) = children(served.process.pid)
        ask = lambda: customer.chat(EMBEDDED["id"], "Tell a very long story.", max_tokens=1500, n=4)
        asking = threading.Thread(target=lambda: answers.append(ask()))
        asking.start()
        time.sleep(1.0)
        os.kill(engine, signal.SIGKILL)
        asking.join(60)
        (failed,) = answers
        assert failed.status == 503 and failed.json["error"]["code"] == "engine_failed"
        assert failed.headers["retry-after"]
        assert customer.retained()[failed.object_id]["reason"] == "engine_crash"
        told = customer.chat(EMBEDDED["id"], max_tokens=4)
        assert told.status in (200, 503)
        assert told.status == 200 or "retry-after" in told.headers
        comes_true(lambda: customer.chat(EMBEDDED["id"], max_tokens=4).status == 200, 60)
        assert children(served.process.pid) != {engine}


# -- changes of policy under traffic -----------------------------------------------------------------------------------

LAG_S = 1.0  # what was sent before an answer may be read by the upstream this much later, on a busy machine


class Rounds:
    """Traffic of three kinds against a deployment of four processes, while its owner turns things off and on."""

    def __init__(self, served: Served, upstream: MockUpstream) -> None:
        self.customer = another(served.url, served.told["operator_key"])
        self.upstream = upstream
        self.wrong: list[str] = []
        self.seen: Counter[str] = Counter()

    def ask(self, number: int) -> Answer:
        """Even clients fail on purpose, odd ones ask a model whose upstream keeps logs."""
        turn = self.seen["asked"]
        self.seen["asked"] += 1
        return self.customer.chat(MANY[turn % len(MANY)] if number % 2 else "logging")

    def set(self, **change: Any) -> float:
        """Change the controls; when that was answered."""
        answer = self.customer.admin("POST", "/data_controls", change)
        assert answer.status == 200, answer.body
        return time.monotonic()

    def judge(self, answers: list[tuple[float, float, Answer]], closed: float, opened: float) -> None:
        """Nothing that began while it was closed may have been kept, or have gone to an upstream that keeps."""
        for began, ended, answer in answers:
            inside = closed <= began and ended <= opened
            routed = answer.status == 200 or "upstream=" in answer.kept
            self.seen["inside" if inside else "outside"] += 1
            self.seen["kept"] += answer.kept.startswith("class=")
            self.seen["routed"] += routed
            if inside and (answer.kept != "none" or routed):
                self.wrong.append(f"{answer.status} {answer.kept}")
        for got in list(self.upstream.received):
            if got.json.get("model") == "logging" and closed + LAG_S < got.at < opened:
                self.wrong.append("routed")


def test_after_a_toggle_has_answered_nothing_is_kept_or_routed(four: Served, upstream: MockUpstream) -> None:
    rounds = Rounds(four, upstream)
    with Traffic(rounds.ask) as traffic:
        for _ in range(3):
            time.sleep(0.5)
            closed = rounds.set(zero_data_retention=True)
            at_once = set(rounds.customer.retained())
            time.sleep(LAG_S + 0.5)
            later = set(rounds.customer.retained())
            opened = time.monotonic()
            assert later <= at_once, "nothing was added after the answer"
            rounds.set(zero_data_retention=False)
            rounds.judge(traffic.answers[:], closed, opened)
    assert rounds.wrong == []
    assert rounds.seen["inside"] > 20 and rounds.seen["kept"] > 3 and rounds.seen["routed"] > 3, rounds.seen
    comes_true(lambda: rounds.customer.admin("GET", "/data_controls").json["residual"]["objects"] == 0)


def test_what_is_under_way_to_an_upstream_that_keeps_is_cut_off(four: Served, upstream: MockUpstream) -> None:
    customer = another(four.url, four.told["operator_key"])
    answers: list[Answer] = []
    asking = [
        threading.Thread(target=lambda: answers.append(customer.chat("slow-stream", stream=True))) for _ in range(8)
    ]
    before = len(upstream.received)
    for thread in asking:
        thread.start()
    comes_true(lambda: sum(got.events_sent > 3 for got in upstream.received[before:]) == 8)
    assert customer.admin("POST", "/data_controls", {"zero_data_retention": True}).status == 200
    sent = [got.events_sent for got in upstream.received[before:]]
    for thread in asking:
        thread.join(20)
    assert len(answers) == 8
    assert all(b'"error"' in answer.body and b"[DONE]" not in answer.body for answer in answers)
    assert all(b"object=obj_" not in answer.body for answer in answers), "a withdrawal is not an incident"
    assert upstream.wait_for(lambda _: all(got.closed_early for got in upstream.received[before:]))
    assert max(sent) < 5000 and customer.retained() == {}


def test_a_revoked_key_is_refused_by_every_process_once_that_is_answered(four: Served) -> None:
    customer = another(four.url, four.told["operator_key"])
    path = f"/projects/{customer.project_id}/api_keys"
    for _ in range(3):
        made = customer.admin("POST", path, {"name": "short"}).json
        with Traffic(lambda _, key=made["value"]: customer.chat("ok", key=key)) as traffic:
            comes_true(lambda: len(traffic.answers) > 20)
            assert {answer.status for _, _, answer in traffic.answers} == {200}, "a new key works at once"
            assert customer.admin("DELETE", f"{path}/{made['id']}").status == 200
            revoked = time.monotonic()
            asked = len(traffic.answers)
            comes_true(lambda number=asked + 30: len(traffic.answers) > number)
        late = [answer.status for began, _, answer in traffic.answers if began > revoked]
        assert len(late) > 20 and set(late) == {401}
