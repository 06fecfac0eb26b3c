"""What a batch costs beside loops that only ask and write a file, and whether organizations are served alike.

Holds: `batches`, `fairness`, `recording`. The first two run a job worker process on a folder of their own, SQLite and
local files, against the fast upstream in C. The loops have the same concurrency and write the answers to a file, so
what is compared is everything else: validation, turns, checks, usage rows, journals, result files.
"""

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from benchmarks.loops import bare, sdk, written
from benchmarks.targets import OUT
from keepless.accounts.fence import Fence
from keepless.accounts.principal import AdminPrincipal, PolicyInForce
from keepless.accounts.roles import Role
from keepless.accounts.store import policy_in_force
from keepless.app.compose import Deployment, open_deployment
from keepless.app.initialise import initialise
from keepless.app.life import tell
from keepless.app.plan import Plan, encode
from keepless.batches import shards, store, transitions
from keepless.batches.shards import ShardPlan
from keepless.batches.values import Batch, BatchEndpoint, NewBatch
from keepless.clock import DAY_MS
from keepless.config import Engine, ModelConfig, Settings, UpstreamRetention
from keepless.content import Content
from keepless.governance.change import Office
from keepless.governance.organizations import Organizations
from keepless.ids import Id, Prefix, mint
from keepless.jobs.files import KeptFiles, ResultKind
from keepless.jobs.journal import ShardJournal, write_together
from keepless.jobs.results import Record, answered
from keepless.policy.data_class import DataClass
from keepless.policy.decide import Query, decide
from keepless.policy.decision import Reason, Retain, Trigger

__all__ = ["batches", "fairness", "recording"]

_AT_ONCE = 64
_MODEL = "mock"
_LINES_OF_SDK = 5_000
_GROUP = 128  # lines, about what a group holds when a worker has as much to do as it can


def batches(lines: int) -> dict[str, float]:
    """One batch of `lines`, and the loops."""
    with _upstream() as url:
        loops = _loops(url, lines)
        with _floor(url, "batches") as (deployment, plan), _worker(plan) as worker:
            _wait_for_worker(deployment)
            began = time.monotonic()
            owner = _first(deployment)
            batch_id = _create(deployment, owner, _input(lines))
            batch = _ended(deployment, batch_id)
            elapsed = time.monotonic() - began
            cpu, most_mb = _cpu_s(worker.pid), _most_mb(worker.pid)
        return {
            "lines": lines,
            "completed": batch.counts.completed,
            **loops,
            "seconds": elapsed,
            "validating_seconds": ((batch.in_progress_at or 0) - batch.created_at) / 1000,
            "running_seconds": ((batch.finalizing_at or 0) - (batch.in_progress_at or 0)) / 1000,
            "finishing_seconds": ((batch.completed_at or 0) - (batch.finalizing_at or 0)) / 1000,
            "cpu_seconds": cpu,
            "ratio_to_bare": elapsed / loops["bare_seconds"],
            "ratio_to_written": elapsed / loops["written_seconds"],
            "ratio_to_sdk": elapsed / loops["sdk_seconds"],
            "memory_most_mb": most_mb,
        }


def fairness(organizations: int, each: int, lines: int) -> dict[str, object]:
    """Many batches of several organizations at once: how far each is when half of all is done."""
    with _upstream() as url, _floor(url, "fairness") as (deployment, plan):
        owners = [_first(deployment), *(_another(deployment) for _ in range(organizations - 1))]
        for owner in owners:  # the worst order: one organization after another
            for _ in range(each):
                _create(deployment, owner, _input(lines))
        total, at_half = organizations * each * lines, {}
        with _worker(plan):
            while sum(at_half.values()) < total / 2:
                time.sleep(0.05)
                at_half = _done(deployment)
            while store_active(deployment):
                time.sleep(0.2)
    done = [at_half.get(owner[0], 0) for owner in owners]
    mean = sum(done) / len(done)
    return {"done_at_half": done, "furthest_from_mean": max(abs(one - mean) for one in done) / mean}


def recording(lines: int) -> dict[str, float]:
    """What it costs to make finished lines durable, alone: sealed, written, committed, group by group."""
    with _floor("http://127.0.0.1:9/v1", "recording") as (deployment, _):
        owner = _first(deployment)
        batch_id = _create(deployment, owner, _input(1))
        with deployment.db.write() as tx:
            transitions.start(tx, batch_id, [ShardPlan(1, lines, 0, 1)], deployment.clock.now_ms())
        with deployment.db.write() as tx:
            batch, shard = store.get(tx, batch_id), shards.take(tx, batch_id, 0)
        assert batch is not None
        assert shard is not None

        def policy_now(organization_id: Id, project_id: Id) -> PolicyInForce | None:
            with deployment.db.read() as tx:
                return policy_in_force(tx, organization_id, project_id)

        journal = ShardJournal(
            deployment.db, deployment.vault, deployment.clock, policy_now=policy_now, batch=batch, shard=shard
        )
        journal.recorded()
        answer = Content(json.dumps({"id": "x" * 30, "choices": [{"message": {"content": "y" * 400}}]}).encode())
        records = [
            Record(number, succeeded=True, line=answered(f"request-{number}", mint(Prefix.REQUEST), 200, answer))
            for number in range(1, lines + 1)
        ]
        began, cpu = time.monotonic(), time.thread_time()
        for at in range(0, lines, _GROUP):
            assert write_together([(journal, records[at : at + _GROUP])]) == [True]
        elapsed, cpu = time.monotonic() - began, time.thread_time() - cpu
        return {"cpu_us_a_line": cpu / lines * 1e6, "ms_a_group": elapsed / (lines / _GROUP) * 1e3}


def store_active(deployment: Deployment) -> list[Batch]:
    """Batches that have not ended."""
    with deployment.db.read() as tx:
        return store.active_of(tx)


def _loops(url: str, lines: int) -> dict[str, float]:
    """What others need for the same lines: see `loops`. The SDK is asked for a part of them, and told for all."""
    data, source, result = _input(lines), OUT / "loop.in.jsonl", OUT / "loop.out.jsonl"
    source.write_bytes(data)
    bare_s, bare_cpu = bare(url, data, _AT_ONCE, result)
    written_s, written_cpu = written(url, source, _AT_ONCE, result)
    some = min(lines, _LINES_OF_SDK)
    source.write_bytes(_input(some))
    sdk_s, sdk_cpu = sdk(url, source, _AT_ONCE, result)
    return {
        "bare_seconds": bare_s,
        "bare_cpu_seconds": bare_cpu,
        "written_seconds": written_s,
        "written_cpu_seconds": written_cpu,
        "sdk_seconds": sdk_s * lines / some,
        "sdk_cpu_seconds": sdk_cpu * lines / some,
    }


# -- a folder, an upstream, a worker ----------------------------------------------------------------------------------


@contextlib.contextmanager
def _upstream() -> Iterator[str]:
    subprocess.run([str(Path(__file__).parent / "build")], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([str(OUT / "bin" / "mock_upstream"), str(port)])
    try:
        time.sleep(0.3)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def _floor(url: str, name: str) -> Iterator[tuple[Deployment, Plan]]:
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    model = ModelConfig(
        id=_MODEL, engine=Engine.OPENAI, base_url=url, retention=UpstreamRetention.ZERO, batch_concurrency=_AT_ONCE
    )
    settings = Settings(data_dir=str(folder), models=[model], location_region="us")
    initialise(settings)
    deployment = open_deployment(settings)
    deployment.location.check()
    try:
        yield deployment, Plan(settings=settings, listening=-1, engines=[], sweeps=False)
    finally:
        deployment.close()


@contextlib.contextmanager
def _worker(plan: Plan) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([sys.executable, "-m", "keepless.app.job_worker"], stdin=subprocess.PIPE)
    tell(process, encode(plan))
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def _wait_for_worker(deployment: Deployment) -> None:
    while True:
        with deployment.db.read() as tx:
            if tx.scalar(sa.text("SELECT COUNT(*) FROM job_worker")):
                return
        time.sleep(0.05)


def _first(deployment: Deployment) -> tuple[Id, Id]:
    with deployment.db.read() as tx:
        row = tx.execute(sa.text("SELECT organization_id, id FROM project")).one()
    return Id(row[0]), Id(row[1])


def _another(deployment: Deployment) -> tuple[Id, Id]:
    office = Office(deployment.db, deployment.clock, Fence(deployment.db, deployment.clock), deployment.log)
    operator = AdminPrincipal(mint(Prefix.OPERATOR_KEY), None, Role.OPERATOR)
    made = Organizations(office).create(operator, name="Another")
    return made.organization_id, made.project_id


def _input(lines: int) -> bytes:
    question = "What keeps nothing it does not have to? " * 6
    body = {"model": _MODEL, "messages": [{"role": "user", "content": question}], "max_tokens": 64}
    rest = {"method": "POST", "url": "/v1/chat/completions", "body": body}
    return b"\n".join(json.dumps({"custom_id": f"request-{at}", **rest}).encode() for at in range(lines)) + b"\n"


def _create(deployment: Deployment, owner: tuple[Id, Id], data: bytes) -> Id:
    file_id = mint(Prefix.FILE)
    with deployment.db.read() as tx:
        policy = policy_in_force(tx, *owner)
    assert policy is not None
    permit = decide(
        Query(
            organization_id=owner[0],
            project_id=owner[1],
            data_class=DataClass.BATCH_INPUT,
            trigger=Trigger.FEATURE,
            reason=Reason.CUSTOMER_UPLOAD,
            effective=policy.effective,
            epoch=policy.epoch,
            created_at_ms=deployment.clock.now_ms(),
        )
    )
    assert isinstance(permit, Retain)
    with deployment.vault.writing(owner[0]) as writer:
        writer.write(Content(data))
        writer.commit(permit, within=lambda tx, kept: KeptFiles().add(tx, file_id, kept, len(data), ResultKind.OUTPUT))
    new = NewBatch(owner[0], owner[1], mint(Prefix.API_KEY), BatchEndpoint.CHAT, file_id, DAY_MS)
    with deployment.db.write() as tx:
        return store.create(tx, new, deployment.clock.now_ms())[0].id


def _ended(deployment: Deployment, batch_id: Id) -> Batch:
    while True:
        with deployment.db.read() as tx:
            batch = store.get(tx, batch_id)
        assert batch is not None
        if batch.ended_at is not None:
            return batch
        time.sleep(0.1)


def _done(deployment: Deployment) -> dict[Id, int]:
    """Lines done, by organization."""
    with deployment.db.read() as tx:
        rows = tx.execute(
            sa.text(
                "SELECT b.organization_id, SUM(b.completed) + COALESCE(SUM((SELECT SUM(s.completed) FROM batch_shard s "
                "WHERE s.batch_id = b.id)), 0) FROM batch b GROUP BY b.organization_id"
            )
        )
        return {Id(row[0]): int(row[1]) for row in rows}


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def _most_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024
