"""The proof of a deployment that somebody runs: nothing of it is killed, and nothing of ours stays.

Holds: `prove_existing`. An organization of the prover's own for each setting is made with an operator key and deleted
again, whatever happens. Leaves out: places that only the machine's owner can search.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from keepless.prover import cases as table
from keepless.prover import places, response_cases
from keepless.prover.cases import SETTINGS, Setting
from keepless.prover.customer import Customer
from keepless.prover.feature_cases import Scenario, plain_scenarios, refused_scenarios
from keepless.prover.feature_proof import allows_batches, play
from keepless.prover.report import Report
from keepless.prover.run import Account, Progress, Run, temporary_folders
from keepless.prover.tuned_cases import base_of, plain_tuned
from keepless.prover.wire import ProverError, ask

__all__ = ["prove_existing"]

_AT_ONCE: Final = 8
_TUNABLE: Final = "fine-tuning: a model to import an adapter for"
_NOT_TUNED: Final = "fine-tuning was not asked for: no model there is one that the prover has an adapter for"


def prove_existing(
    base_url: str,
    operator_key: str,
    *,
    data_dir: Path | None = None,
    model: str | None = None,
    progress: Progress = lambda _done, _total: None,
) -> Report:
    """Prove a deployment that somebody runs, with organizations of our own, which are deleted again.

    `data_dir`: its data folder, if it is on this machine; without it nothing can be searched but the answers. Raises
    `ProverError` when the server cannot be reached or refuses the key.
    """
    url = base_url.rstrip("/").removesuffix("/v1").removesuffix("/openai")
    run = Run(progress)
    run.expect(len(SETTINGS) * len(_cases("")) + sum(len(_scenarios(setting, "")) for setting in SETTINGS))
    run.expect(sum(map(allows_batches, SETTINGS)))
    try:
        for setting in SETTINGS:
            account = run.account(url, operator_key, setting)
            name = model or ask(url, account.api_key, "GET", "/v1/models")["data"][0]["id"]
            for case in _cases(name):
                run.one(url, account, case)
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                for one in [*_scenarios(setting, name), *_tuned(run, url, account)]:
                    pool.submit(play, run, Customer(run, url, account, one.name), one.name, one.play)
        if data_dir is None:
            run.report.limits.append("no data folder was given: only answers and lists were checked")
        else:
            run.report.searched.append(("while serving", places.folder(run.search, data_dir.absolute(), "data folder")))
            run.report.searched.append(
                ("while serving", places.temporary(run.search, temporary_folders(), since=run.since))
            )
    finally:
        _delete(run, url, operator_key)
    run.report.limits.append("the server's log, processes, database server and backups were not searched")
    return run.done()


def _cases(model: str) -> list[table.Case]:
    return [*table.plain_cases(model), *response_cases.plain_cases(model)]


def _scenarios(setting: Setting, model: str) -> list[Scenario]:
    return plain_scenarios(model) if allows_batches(setting) else refused_scenarios()


def _tuned(run: Run, url: str, account: Account) -> list[Scenario]:
    """Fine-tuning, where the adapter of ours is for a model there; where it is not, the report says so."""
    if not allows_batches(account.setting):
        return []
    base = play(run, Customer(run, url, account, _TUNABLE), _TUNABLE, base_of)
    if base is None:
        if _NOT_TUNED not in run.report.limits:
            run.report.limits.append(_NOT_TUNED)
        return []
    found = [Scenario(name, act) for name, act in plain_tuned(base).items()]
    run.expect(len(found))
    return found


def _delete(run: Run, url: str, operator_key: str) -> None:
    for account in run.accounts:
        try:
            ask(url, operator_key, "DELETE", f"/v1/organizations/{account.organization_id}")
        except ProverError:
            run.report.wrong.append(f"the prover's organization {account.organization_id} could not be deleted")
