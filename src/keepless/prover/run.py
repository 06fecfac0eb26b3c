"""What every proof does: one case under one setting, and the check of what came of it.

Holds: `Account` (an organization of the prover's own), `Run` (markers, outcomes, what is kept), `Progress`,
`temporary_folders`. Leaves out: whose deployment it is (throwaway, existing).
"""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from keepless.prover import cases as table
from keepless.prover.cases import Case, Setting
from keepless.prover.check import told, wrong
from keepless.prover.markers import Markers
from keepless.prover.report import Outcome, Report
from keepless.prover.search import ZSTD, Search
from keepless.prover.wire import Answer, ask, send

__all__ = ["Account", "Progress", "Run", "temporary_folders"]

Progress = Callable[[int, int | None], None]
_ROOT: Final = Path("/")


@dataclass(frozen=True, slots=True)
class Account:
    """An organization of the prover's own."""

    setting: Setting
    organization_id: str
    project_id: str
    api_key: str
    admin_key: str


class Run:
    """What both kinds of proof share."""

    def __init__(self, progress: Progress) -> None:
        self.markers: Final = Markers()
        self.search: Final = Search.of_run(self.markers)
        self.report: Final = Report()
        self.since: Final = time.time()
        self.kept: Final[dict[str, dict[str, str]]] = {}  # organization -> id -> reason
        self.accounts: Final[list[Account]] = []
        self._progress: Final = progress
        self._total = self._done = 0
        self._lock: Final = threading.Lock()

    def expect(self, steps: int) -> None:
        """More steps of the bar."""
        self._total += steps

    def step(self) -> None:
        """One of the steps that the bar shows; from any thread."""
        with self._lock:
            self._done += 1
            self._progress(self._done, self._total)

    def account(self, url: str, operator_key: str, setting: Setting) -> Account:
        """A new organization under a setting."""
        made = ask(url, operator_key, "POST", "/v1/organizations", {"name": f"canary prover, {setting.name}"})
        account = Account(setting, made["id"], made["project_id"], made["api_key"], made["admin_key"])
        self.accounts.append(account)
        if setting.controls:
            ask(url, account.admin_key, "POST", "/v1/organization/data_controls", setting.controls)
        self.kept[account.organization_id] = {}
        return account

    def one(self, url: str, account: Account, case: Case) -> Answer:
        """One case under one setting."""
        setting = account.setting
        mark = self.mark(case.name, setting.name)
        answer = send(url, account.api_key, case.make(mark))
        listed = self.listed(url, account)
        before = self.kept[account.organization_id]
        new = {id: reason for id, reason in listed.items() if id not in before}
        fault = wrong(case, setting, answer, new)
        if before.keys() - listed.keys():
            fault = "something that was kept is gone"
        self.kept[account.organization_id] = listed
        self.report.outcomes.append(Outcome(case.name, setting.name, answer.status, told(answer) is not None, fault))
        self.step()
        return answer

    def mark(self, case: str, setting: str) -> table.Mark:
        """Mints markers for the parts of a case."""

        def mark(part: str) -> str:
            return self.markers.mint(part, case, setting).text

        return mark

    @staticmethod
    def listed(url: str, account: Account, member: str = "reason") -> dict[str, str]:
        """What is kept of an organization: id -> reason (or another member)."""
        found: dict[str, str] = {}
        after = ""
        while True:
            page = ask(url, account.admin_key, "GET", f"/v1/organization/retained_objects?limit=100{after}")
            found |= {item["id"]: item[member] for item in page["data"]}
            if not page.get("has_more"):
                return found
            after = f"&after={page['last_id']}"

    def done(self) -> Report:
        """The report."""
        report = self.report
        report.markers = {marker.number: marker for marker in self.markers.all()}
        for place in {searched.place: searched for _, searched in report.searched if searched.unreadable}.values():
            report.limits.append(f"{place.place}: {place.unreadable} could not be read (the super-user can read more)")
        if not ZSTD:
            report.limits.append("zstd members were not opened: this system has no libzstd")
        report.limits.append(f"took {time.time() - self.since:.0f} seconds")
        return report


def temporary_folders() -> list[Path]:
    """Where programs of this machine leave temporary files."""
    named = [Path(os.environ[name]) for name in ("TMPDIR", "TEMP", "TMP") if name in os.environ]
    return [*named, _ROOT / "tmp", _ROOT / "var" / "tmp", _ROOT / "dev" / "shm"]
