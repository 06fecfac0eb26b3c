"""The proof of a throw-away deployment, the only one that the prover may kill.

Holds: `prove`. Leaves out: what is sent (cases), how it is searched (places), how a report is shown.

1. Start, with something planted in each place that the search must find there.
2. Every case under every setting; after each, what the answer says is kept must be what is listed. Meanwhile files and
   batches, in organizations of their own.
3. With requests, batches and a training under way: search. SIGKILL: search.
4. Start again: the same is kept as before, batches and the training go on. Zero data retention on: nothing is kept.
5. SIGTERM: search.
6. Thirty-two days later: nothing is kept of what was left, nowhere.
"""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from keepless.prover import cases as table
from keepless.prover import media_cases as media
from keepless.prover import places, response_cases
from keepless.prover import spoken_cases as aloud
from keepless.prover.cases import SETTINGS, Case, Setting
from keepless.prover.deployment import Deployment
from keepless.prover.feature_cases import FILE_BYTES
from keepless.prover.feature_proof import Features
from keepless.prover.look import JOBS_SCHEMA, database_url_of, job_store_of, look, open_database
from keepless.prover.markers import Markers
from keepless.prover.models import EMBEDDED, batch_models, models_of
from keepless.prover.places import Searched, Unchanged
from keepless.prover.report import Control, Report
from keepless.prover.run import Account, Progress, Run, temporary_folders
from keepless.prover.search import Search
from keepless.prover.spoken_cases import Recording, record
from keepless.prover.upstream import FaultUpstream, Temper
from keepless.prover.wire import Manner, ProverError, Request, ask, begin
from keepless.vault.tables import kept

__all__ = ["prove"]

_PURGED_S: Final = 20.0
_LOOKS: Final = 4
_LATER_DAYS: Final = 32
_AT_ONCE: Final = 24  # requests of the prover itself
_TUNING: Final = {"threads": 1, "checkpoint_seconds": 1.0, "load_seconds": 170.0}  # a busy machine may be slow


def prove(
    within: Path,
    *,
    embedded: bool = True,
    database_url: str | None = None,
    settings: Sequence[Setting] = SETTINGS,
    cases: Sequence[str] | None = None,
    environment: Mapping[str, str] | None = None,
    without: Sequence[Path] = (),
    progress: Progress = lambda _done, _total: None,
) -> Report:
    """Prove a throw-away deployment in a folder within `within`. `cases`: only those of these names.

    `without`: temporary folders that belong to somebody else who writes there meanwhile, and are not searched. Raises
    `ProverError` when the server does not start or the database is not empty.
    """
    with FaultUpstream() as upstream, FaultUpstream() as of_batches:
        models = [*models_of(upstream.base_url, embedded=embedded), *batch_models(of_batches.base_url)]
        chosen = [*table.fault_cases(), *response_cases.fault_cases(), *media.fault_media_cases()]
        chosen += aloud.fault_spoken_cases()
        if embedded:
            chosen += [*table.embedded_cases(EMBEDDED), *response_cases.embedded_cases(EMBEDDED)]
            chosen += media.embedded_media_cases()
        chosen = [case for case in chosen if cases is None or case.name in cases]
        run = Run(progress)
        run.expect(len(chosen) * len(settings) + _LOOKS)
        features = Features(run, settings, cases, tuned=embedded)
        limits = {"body_bytes": table.BODY_BYTES, "file_bytes": FILE_BYTES}
        own = {"limits": limits, "fine_tuning": _TUNING, **({"database_url": database_url} if database_url else {})}
        plant = _Plant()
        given = {**(environment or {}), "CANARY_CONTROL": plant.text}
        with _Emptied(database_url), Deployment(within, own, models, environment=given) as deployment:
            proof = _Throwaway(run, deployment, upstream, plant, database_url=database_url, without=without)
            proof.prove(chosen, settings, features, of_batches, spoken=embedded and cases is None)
        return run.done()


class _Plant:
    """Something put where it must be found: a marker of its own run, so that it is no finding."""

    def __init__(self) -> None:
        markers = Markers()
        self.text: Final = markers.mint("control").text
        self.search: Final = Search.of_run(markers)


class _Emptied:
    """A given database: it must be empty before, and is empty again after."""

    def __init__(self, url: str | None) -> None:
        self._url: Final = url

    def __enter__(self) -> None:
        if self._url is not None and self._tables(drop=False):
            raise ProverError("the database is not empty; nothing was touched")

    def __exit__(self, *_: object) -> None:
        if self._url is not None:
            self._tables(drop=True)

    def _tables(self, *, drop: bool) -> int:
        db = open_database(self._url or "")
        try:
            found = sa.MetaData()
            found.reflect(db.engine)
            jobs = sa.MetaData(schema=JOBS_SCHEMA)
            jobs.reflect(db.engine, schema=JOBS_SCHEMA)
            if drop:
                found.drop_all(db.engine)
                with db.write() as tx:
                    tx.execute(sa.schema.DropSchema(JOBS_SCHEMA, cascade=True, if_exists=True))
            return len(found.tables) + len(jobs.tables)
        except sa.exc.SQLAlchemyError:
            raise ProverError("the database cannot be reached") from None
        finally:
            db.close()


class _Throwaway:
    """The proof of one throw-away deployment."""

    def __init__(
        self,
        run: Run,
        deployment: Deployment,
        upstream: FaultUpstream,
        plant: _Plant,
        *,
        database_url: str | None,
        without: Sequence[Path],
    ) -> None:
        self._run: Final = run
        self._deployment: Final = deployment
        self._upstream: Final = upstream
        self._plant: Final = plant
        self._database: Final = database_url
        self._without: Final = [deployment.folder, *without]
        self._unchanged: Final = Unchanged()
        self._spoken: Search | None = None

    def prove(
        self,
        cases: Sequence[Case],
        settings: Sequence[Setting],
        features: Features,
        of_batches: FaultUpstream,
        *,
        spoken: bool,
    ) -> None:
        """See the module."""
        run, deployment = self._run, self._deployment
        deployment.start()
        operator = deployment.told["operator_key"]
        accounts = [run.account(deployment.url, operator, setting) for setting in settings]
        ask(
            deployment.url, accounts[0].admin_key, "POST", "/v1/organization/projects", {"name": self._plant.text}
        )  # the control of the database
        of_batches.say = run.mark("batches", "any")("upstream's answer")
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            playing = features.start(deployment.url, operator, pool)
            for case in cases:
                self._upstream.say = run.mark(case.name, "any")("upstream's answer")
                for future in [pool.submit(run.one, deployment.url, account, case) for account in accounts]:
                    future.result()
            for future in playing:
                future.result()
        recording = self._aloud(accounts[0]) if spoken else None
        features.left()
        features.begin(deployment.kill_one)
        under_way = [connection for account in accounts for connection in self._begin(account)]
        if recording is not None:
            under_way.append(begin(deployment.url, accounts[0].api_key, aloud.under_way(recording)))
        self._look("requests under way", plant=True)
        features.last()
        deployment.kill()
        for connection in under_way:
            connection.close()
        self._look("after SIGKILL")
        features.late(database_url_of(deployment, self._database))
        deployment.start()
        for account in accounts:
            self._same(account)
        features.go_on(deployment.url, of_batches.let_go)
        self._turned_off([one for one in (*accounts, *features.accounts) if one.setting.captures])
        if deployment.stop() != 0:
            run.report.wrong.append("the server did not end on SIGTERM")
        self._look("after SIGTERM")
        self._later()

    def _aloud(self, account: Account) -> Recording:
        """The embedded ears, under one setting: engines know of none."""
        run, url = self._run, self._deployment.url
        recording, self._spoken = record(run, url, account)
        cases = aloud.embedded_spoken_cases(recording)
        run.expect(len(cases))
        for case in cases:
            answer = run.one(url, account, case)
            if case.name == aloud.HEARD:
                run.report.controls.append(Control("spoken words", recording.heard_in(answer)))
        return recording

    def _later(self) -> None:
        """When every period has ended, whatever customers have left is destroyed."""
        if self._deployment.sweep_later(_LATER_DAYS) != 0:
            self._run.report.wrong.append("a sweep after every period has ended finds something wrong")
        db = open_database(database_url_of(self._deployment, self._database))
        try:
            with db.read() as tx:
                left = tx.scalar(sa.select(sa.func.count()).select_from(kept)) or 0
        finally:
            db.close()
        blobs = sum(path.is_file() for path in (self._deployment.data_dir / "blobs").rglob("*"))
        if left or blobs:
            self._run.report.wrong.append(f"{left} objects and {blobs} files are kept after every period has ended")
        self._look("32 days later")

    def _begin(self, account: Account) -> list[Any]:
        """Requests that stay under way: a stream that does not end, and half a body."""
        mark = self._run.mark("killed under way", account.setting.name)
        self._upstream.say = mark("upstream's answer")
        stream = Request("/v1/chat/completions", table.chat(mark, Temper.ENDLESS, stream=True))
        half = Request("/v1/chat/completions", table.chat(mark, Temper.WELL, stream=False), {}, Manner.HALF)
        begun = [begin(self._deployment.url, account.api_key, request) for request in (stream, half)]
        begun[0].getresponse().read(1)
        return begun

    def _look(self, when: str, *, plant: bool = False) -> None:
        found = self._search(self._run.search, self._run.since, self._unchanged)
        if self._spoken is not None:
            # Words of a language stand in other programs' files as well: they are looked for in what is ours.
            words = look(self._spoken, self._deployment, self._database, since=self._run.since)
            for searched, of_words in zip(found, words, strict=False):
                searched.findings |= of_words.findings
        self._run.report.searched += [(when, searched) for searched in found]
        if plant:
            self._controls()
        self._run.step()

    def _search(self, search: Search, since: float, unchanged: Unchanged | None = None) -> list[Searched]:
        found = look(search, self._deployment, self._database, since=self._run.since)
        elsewhere = places.temporary(
            search, temporary_folders(), since=since, without=self._without, unchanged=unchanged
        )
        return [*found, elsewhere]

    def _controls(self) -> None:
        """Search for what was planted: in the database, an environment, a temporary folder; and for a key in the log.

        What a search of processes is not allowed to read is told as a limit, and is no control.
        """
        planted = [temporary_folders()[0] / self._plant.text]
        if self._database is not None:
            # The database lies elsewhere, so its pages cannot stand for the data folder: a name in it does.
            planted.append(self._deployment.folder / self._plant.text)
        now = time.time()
        for name in planted:
            name.mkdir()
        try:
            self._plant_job(drop=False)
            found = {searched.place: searched for searched in self._search(self._plant.search, now)}
        finally:
            self._plant_job(drop=True)
            for name in planted:
                name.rmdir()
        written = Search.of_texts([self._deployment.told["api_key"]])
        found["log and standard output"] = places.output(written, self._deployment.written())
        for place, searched in found.items():
            if searched.findings or not searched.unreadable:
                self._run.report.controls.append(Control(place, bool(searched.findings)))

    def _plant_job(self, *, drop: bool) -> None:
        """A table of the prover's own in the job store, while it looks."""
        url = job_store_of(self._deployment, self._database)
        if url is None:
            return
        db = open_database(url)
        try:
            schema = JOBS_SCHEMA if self._database is not None else None
            note = sa.Table("canary_control", sa.MetaData(schema=schema), sa.Column("note", sa.Text))
            with db.write() as tx:
                note.drop(tx, checkfirst=True)
                if not drop:
                    note.create(tx)
                    tx.execute(note.insert().values(note=self._plant.text))
        finally:
            db.close()

    def _same(self, account: Account) -> None:
        if self._run.listed(self._deployment.url, account) != self._run.kept[account.organization_id]:
            self._run.report.wrong.append(f"{account.setting.name}: after SIGKILL something else is kept than before")

    def _turned_off(self, accounts: Sequence[Account]) -> None:
        """Zero data retention, turned on: what exists has lost its reason and is destroyed."""
        url, until = self._deployment.url, time.monotonic() + _PURGED_S
        for account in accounts:
            body = {"zero_data_retention": True, "purge": True}
            ask(url, account.admin_key, "POST", "/v1/organization/data_controls", body)
            while left := self._run.listed(url, account):
                if time.monotonic() > until:
                    self._run.report.wrong.append(f"{len(left)} objects are still kept after turning retention off")
                    return
                time.sleep(0.1)
