"""Files and batches of a throw-away deployment, played beside the cases of inference, and through its death.

Holds: `Features`. Leaves out: the scenarios (feature_cases, tuned_cases, training_cases), searching (throwaway).

1. `play`: every scenario under every setting, all at once. What is left of them is at most metadata.
2. `begin`: batches under way when the server is killed, a tuned model in memory, a training whose trainer was killed
   once already; `last`: an import, at the last moment.
3. `late`: while it is dead, the window of one of them ends (in its row: nobody can wait for a day).
4. `go_on`: the tuned model answers again, the import comes to its end, the training goes on; that batch has expired,
   another comes to its end; each line of both is delivered once, and stays.
A third batch and the training are still under way when their features are turned off: the throw-away proof shows that
nothing is left of them.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from keepless.batches.tables import batch as batch_table
from keepless.policy.data_class import DataClass
from keepless.prover import feature_cases as table
from keepless.prover.cases import Setting
from keepless.prover.customer import BrokenPromiseError, Customer
from keepless.prover.feature_cases import Scenario
from keepless.prover.look import open_database
from keepless.prover.report import Outcome
from keepless.prover.run import Account, Run
from keepless.prover.training_cases import PROGRAM, Begun, goes_on, import_now, imported, send, train, under_way
from keepless.prover.tuned_cases import Tuned, refused_tuned, says, start, tuned_scenarios
from keepless.prover.wire import ProverError
from keepless.training.port import is_missing

__all__ = ["Features", "allows_batches", "play"]

_PURGED_S: Final = 60.0
_LOOK_S: Final = 0.1
_TURNED_OFF, _EXPIRES, _GOES_ON = "batches: under way", "batches: under way, late", "batches: killed under way"
_LEARNT: Final = "fine-tuning: there when the server is killed"
_TRAINED: Final = "fine-tuning: trained, killed half way"
_IMPORTED: Final = "fine-tuning: imported, killed half way"
_ENDING: Final = (_EXPIRES, _GOES_ON)


def allows_batches(setting: Setting) -> bool:
    """Whether a setting leaves the feature on."""
    return not setting.controls.get("zero_data_retention")


@dataclass(slots=True)
class _UnderWay:
    """A batch that was under way when the server died."""

    customer: Customer
    name: str
    batch_id: str
    ids: Sequence[str]
    file_id: str


def play(run: Run, customer: Customer, name: str, act: Callable[[Customer], Any]) -> Any:
    """Play something and note what came of it; what `act` returned, None when it broke a promise."""
    fault, made = "", None
    try:
        made = act(customer)
    except BrokenPromiseError as broken:
        fault = broken.says
    except ProverError:
        fault = "the server could not be asked"
    except (KeyError, TypeError, ValueError):
        fault = "an answer is not what it should be"
    run.report.outcomes.append(Outcome(name, customer.account.setting.name, customer.status, customer.kept, fault))
    run.step()
    return made


class Features:
    """See the module."""

    def __init__(
        self, run: Run, settings: Sequence[Setting], scenarios: Sequence[str] | None, *, tuned: bool = False
    ) -> None:
        self._run: Final = run
        self._tuned: Final = tuned  # whether there is a model that can be tuned
        self._whole: Final = tuned and scenarios is None
        self._trains: Final = self._whole and not is_missing()
        self._tunes: Account | None = None
        self._learnt: Tuned | None = None
        self._begun: Begun | None = None
        self._sent: tuple[str, str] | None = None
        self._importing: str | None = None
        if self._whole and not self._trains:
            run.report.limits.append("no trainer is installed (make install-finetune): no training was killed half way")
        self._only: Final = scenarios
        self._settings: Final = settings
        self._accounts: Final[list[Account]] = []
        self._under_way: Final[list[_UnderWay]] = []
        self._url = ""
        run.expect(self._steps())

    @property
    def accounts(self) -> Sequence[Account]:
        """Organizations with files and batches."""
        return self._accounts

    def _steps(self) -> int:
        each = [len(self._of(setting)) for setting in self._settings]
        may = [allows_batches(setting) for setting, many in zip(self._settings, each, strict=True) if many]
        steps = sum(each) + len(may) + sum(may) + 3 * any(may)  # what is left; begun; one more begun, two ended
        # a model that is there, and again; an import: sent, asked for, ended; a training: begun, killed, going on
        return steps + (5 * self._whole + 3 * self._trains) * any(may)

    def _of(self, setting: Setting) -> list[Scenario]:
        allowed = allows_batches(setting)
        found = table.scenarios() if allowed else table.refused_scenarios()
        if self._tuned:
            found += [Scenario(name, act) for name, act in (tuned_scenarios() if allowed else refused_tuned()).items()]
        return [one for one in found if self._only is None or one.name in self._only]

    # 1.
    def start(self, url: str, operator_key: str, pool: ThreadPoolExecutor) -> "list[Future[Any]]":
        """Begin to play everything."""
        begun = []
        self._url = url
        for setting in self._settings:
            scenarios = self._of(setting)
            if scenarios:
                account = self._run.account(url, operator_key, setting)
                self._accounts.append(account)
                for one in scenarios:
                    customer = Customer(self._run, url, account, one.name)
                    begun.append(pool.submit(play, self._run, customer, one.name, one.play))
        return begun

    def left(self) -> None:
        """After all of them: nothing is kept but what batches are still shown with."""
        for account in self._accounts:
            customer = Customer(self._run, self._url, account, "files and batches: what is left")
            play(self._run, customer, "files and batches: what is left", self._nothing_left)

    def _nothing_left(self, customer: Customer) -> None:
        shown = 0
        if allows_batches(customer.account.setting):
            if customer.json("GET", "/files")["data"]:
                raise BrokenPromiseError("a file is listed that was deleted")
            shown = sum(one["metadata"] is not None for one in customer.json("GET", "/batches?limit=100")["data"])
        until = time.monotonic() + _PURGED_S
        while customer.kept_now() != [DataClass.BATCH_INPUT.value] * shown:  # work is purged after the end of its batch
            if time.monotonic() > until:
                raise BrokenPromiseError("something is kept that has lost its reason")
            time.sleep(_LOOK_S)

    # 2.
    def begin(self, kill: Callable[[bytes], int]) -> None:
        """Batches under way; two of the last account that may have them, one of each other. And fine-tunings.

        `kill` ends the processes that run a program.
        """
        may = [account for account in self._accounts if allows_batches(account.setting)]
        self._tunes = next((one for one in may if one.setting.captures), None)
        with ThreadPoolExecutor(1) as pool:
            training = pool.submit(self._train, kill) if self._trains else None
            self._begin_batches(may)
            if self._whole:
                self._learnt = self._play(_LEARNT, start)
                self._sent = self._play(f"{_IMPORTED}: sent", send)
            self._begun = None if training is None else training.result()

    def _train(self, kill: Callable[[bytes], int]) -> Begun | None:
        begun: Begun | None = self._play(_TRAINED, train)
        if begun is not None:
            self._play(f"{_TRAINED}: its trainer", partial(_killed, begun, kill))
        return begun

    def last(self) -> None:
        """An import is asked for; whoever calls this kills the server next."""
        if self._sent is not None:
            self._importing = self._play(_IMPORTED, partial(import_now, file_id=self._sent[1]))

    def _play(self, name: str, act: Callable[[Customer], Any]) -> Any:
        account = self._tunes
        return None if account is None else play(self._run, Customer(self._run, self._url, account, name), name, act)

    def _begin_batches(self, may: Sequence[Account]) -> None:
        names = [(account, _TURNED_OFF) for account in may[:-1]] + [
            (account, name) for account in may[-1:] for name in _ENDING
        ]
        for account, name in names:
            customer = Customer(self._run, self._url, account, name)
            begun = play(self._run, customer, name, table.under_way)
            if begun is not None:
                file_id, batch_id, ids = begun
                self._under_way.append(_UnderWay(customer, name, batch_id, ids, file_id))

    # 3.
    def late(self, database_url: str) -> None:
        """The window of the batch that is to expire ends now."""
        late = [one.batch_id for one in self._under_way if one.name == _EXPIRES]
        db = open_database(database_url)
        try:
            with db.write() as tx:
                over = batch_table.update().where(batch_table.c.id.in_(late))
                tx.execute(over.values(expires_at=int(time.time() * 1000)))
        finally:
            db.close()

    # 4.
    def go_on(self, url: str, let_go: Callable[[], None]) -> None:
        """After the server's death: each line once, of the batch that is late and then of the one that is not."""
        self._url = url
        if self._learnt is not None:
            self._play(f"{_LEARNT}: again", partial(_again, self._learnt))
        if self._importing is not None and self._sent is not None:
            word, file_id = self._sent
            ends = partial(imported, tuning_id=self._importing, word=word, file_id=file_id)
            self._play(f"{_IMPORTED}: its end", ends)
        for name in _ENDING:
            if name == _GOES_ON:
                let_go()
            for one in self._under_way:
                if one.name == name:
                    customer = Customer(self._run, url, one.customer.account, name)
                    play(self._run, customer, f"{name}: its end", partial(self._end, one))
        if self._begun is not None:
            self._play(f"{_TRAINED}: again", partial(goes_on, begun=self._begun))

    @staticmethod
    def _end(one: _UnderWay, customer: Customer) -> None:
        expired = one.name == _EXPIRES
        batch = customer.ended(one.batch_id, "expired" if expired else "completed")
        output, errors = customer.each_once(batch, one.ids)
        if (len(output), len(errors)) != ((2, 2) if expired else (4, 0)):
            raise BrokenPromiseError("what was done before the server died is not delivered")
        customer.kept = True


def _killed(begun: Begun, kill: Callable[[bytes], int], customer: Customer) -> None:
    """Kill what trains, half way."""
    if not kill(PROGRAM):
        raise BrokenPromiseError("nothing trains")
    under_way(customer, begun)


def _again(tuned: Tuned, customer: Customer) -> None:
    says(customer, tuned)
    customer.kept = True
