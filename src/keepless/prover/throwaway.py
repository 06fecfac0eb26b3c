"""The proof of a throw-away deployment, the only one that the prover may kill.

Holds: `prove`. Leaves out: what is sent (cases), how it is searched (places), how a report is shown.

1. Start, with something planted in each place that the search must find there.
2. Every case under every setting; after each, what the answer says is kept must be what is listed.
3. With requests under way: search. SIGKILL: search.
4. Start again: the same is kept as before. Turn zero data retention on: nothing is.
5. SIGTERM: search.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from keepless.prover import cases as table
from keepless.prover import media_cases as media
from keepless.prover import places, response_cases
from keepless.prover.cases import SETTINGS, Case, Setting
from keepless.prover.deployment import Deployment
from keepless.prover.look import job_store, look, open_database
from keepless.prover.markers import Markers
from keepless.prover.places import Searched
from keepless.prover.report import Control, Report
from keepless.prover.run import Account, Progress, Run, temporary_folders
from keepless.prover.search import Search
from keepless.prover.upstream import FaultUpstream, Temper
from keepless.prover.wire import Manner, ProverError, Request, ask, begin

__all__ = ["prove"]

_EMBEDDED: Final = "embedded"
_IMPATIENCE: Final = {"first_byte_timeout": 0.7, "idle_timeout": 0.7, "connect_timeout": 2.0}
_PATIENCE: Final = {"first_byte_timeout": 60.0, "idle_timeout": 60.0, "connect_timeout": 5.0}
_IMPATIENT: Final = (Temper.LATE, Temper.STUCK)
_PURGED_S: Final = 20.0
_LOOKS: Final = 3
_JOBS_SCHEMA: Final = "keepless_jobs"


def prove(
    within: Path,
    *,
    embedded: bool = True,
    database_url: str | None = None,
    settings: Sequence[Setting] = SETTINGS,
    cases: Sequence[str] | None = None,
    environment: Mapping[str, str] | None = None,
    progress: Progress = lambda _done, _total: None,
) -> Report:
    """Prove a throw-away deployment in a folder within `within`. `cases`: only those of these names.

    Raises `ProverError` when the server does not start or the database is not empty.
    """
    with FaultUpstream() as upstream:
        models = _models(upstream.base_url, embedded=embedded)
        chosen = [*table.fault_cases(), *response_cases.fault_cases(), *media.fault_media_cases()]
        if embedded:
            chosen += [*table.embedded_cases(_EMBEDDED), *response_cases.embedded_cases(_EMBEDDED)]
            chosen += media.embedded_media_cases()
        chosen = [case for case in chosen if cases is None or case.name in cases]
        run = Run(progress, len(chosen) * len(settings) + _LOOKS)
        own = {"limits": {"body_bytes": table.BODY_BYTES}, **({"database_url": database_url} if database_url else {})}
        plant = _Plant()
        given = {**(environment or {}), "CANARY_CONTROL": plant.text}
        with _Emptied(database_url), Deployment(within, own, models, environment=given) as deployment:
            _Throwaway(run, deployment, upstream, plant, database_url).prove(chosen, settings)
        return run.done()


def _models(base_url: str, *, embedded: bool) -> list[dict[str, Any]]:
    shared = {"engine": "openai", "retention": "zero"}
    models: list[dict[str, Any]] = [
        {"id": temper.value, "base_url": base_url, **shared, **(_IMPATIENCE if temper in _IMPATIENT else _PATIENCE)}
        for temper in Temper
    ]
    models += [
        {**model, "id": response_cases.native(model["id"]), "upstream_model": model["id"], "native_responses": True}
        for model in models
    ]
    # Nobody can listen on port 1 of loopback without being the super-user.
    models.append({"id": table.UNREACHABLE, "base_url": "http://127.0.0.1:1/v1", **shared, **_PATIENCE})
    for name, (temper, endpoint) in media.FAILING.items():
        behaves = {"base_url": base_url, "upstream_model": temper.value, "endpoints": [endpoint]}
        models.append({"id": name, **behaves, **shared, **_PATIENCE})
    if embedded:
        models += [{"id": media.VOICE, "engine": "flite"}, {"id": media.EMBEDDER, "engine": "minilm"}]
        models.append({"id": _EMBEDDED, "engine": "llama", "context_window": 2048, "max_completion_tokens": 2048})
    return models


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
            jobs = sa.MetaData(schema=_JOBS_SCHEMA)
            jobs.reflect(db.engine, schema=_JOBS_SCHEMA)
            if drop:
                found.drop_all(db.engine)
                with db.write() as tx:
                    tx.execute(sa.schema.DropSchema(_JOBS_SCHEMA, cascade=True, if_exists=True))
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
        database_url: str | None,
    ) -> None:
        self._run: Final = run
        self._deployment: Final = deployment
        self._upstream: Final = upstream
        self._plant: Final = plant
        self._database: Final = database_url

    def prove(self, cases: Sequence[Case], settings: Sequence[Setting]) -> None:
        """See the module."""
        run, deployment = self._run, self._deployment
        deployment.start()
        operator = deployment.told["operator_key"]
        accounts = [run.account(deployment.url, operator, setting) for setting in settings]
        ask(
            deployment.url, accounts[0].admin_key, "POST", "/v1/organization/projects", {"name": self._plant.text}
        )  # the control of the database
        for account in accounts:
            for case in cases:
                run.one(deployment.url, account, case, self._say)
        under_way = [connection for account in accounts for connection in self._begin(account)]
        self._look("requests under way", plant=True)
        deployment.kill()
        for connection in under_way:
            connection.close()
        self._look("after SIGKILL")
        deployment.start()
        for account in accounts:
            self._same(account)
        self._turned_off([account for account in accounts if account.setting.captures])
        if deployment.stop() != 0:
            run.report.wrong.append("the server did not end on SIGTERM")
        self._look("after SIGTERM")

    def _say(self, text: str) -> None:
        self._upstream.say = text

    def _begin(self, account: Account) -> list[Any]:
        """Requests that stay under way: a stream that does not end, and half a body."""
        mark = self._run.mark("killed under way", account.setting.name)
        self._say(mark("upstream's answer"))
        stream = Request("/v1/chat/completions", table.chat(mark, Temper.ENDLESS, stream=True))
        half = Request("/v1/chat/completions", table.chat(mark, Temper.WELL, stream=False), {}, Manner.HALF)
        begun = [begin(self._deployment.url, account.api_key, request) for request in (stream, half)]
        begun[0].getresponse().read(1)
        return begun

    def _look(self, when: str, *, plant: bool = False) -> None:
        found = self._search(self._run.search)
        self._run.report.searched += [(when, searched) for searched in found]
        if plant:
            self._controls()
        self._run.step()

    def _search(self, search: Search) -> list[Searched]:
        found = look(search, self._deployment, self._database, since=self._run.since)
        without = [self._deployment.folder]
        return [*found, places.temporary(search, temporary_folders(), since=self._run.since, without=without)]

    def _controls(self) -> None:
        """Search for what was planted: in the database, an environment, a temporary folder; and for a key in the log.

        What a search of processes is not allowed to read is told as a limit, and is no control.
        """
        planted = [temporary_folders()[0] / self._plant.text]
        if self._database is not None:
            # The database lies elsewhere, so its pages cannot stand for the data folder: a name in it does.
            planted.append(self._deployment.folder / self._plant.text)
        for name in planted:
            name.mkdir()
        try:
            self._plant_job(drop=False)
            found = {searched.place: searched for searched in self._search(self._plant.search)}
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
        path = job_store(self._deployment)
        if not path.exists():
            return
        db = open_database(f"sqlite:///{path}")
        note = sa.Table("canary_control", sa.MetaData(), sa.Column("note", sa.Text))
        try:
            with db.write() as tx:
                note.drop(tx, checkfirst=True)
                if not drop:
                    note.create(tx)
                    tx.execute(note.insert().values(note=self._plant.text))
        finally:
            db.close()

    def _same(self, account: Account) -> None:
        if self._run.listed(self._deployment.url, account) != self._run.kept[account.setting.name]:
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
