"""`keepless prove`: the canary prover on the command line.

Without `--base-url` it starts a deployment of its own, which it kills and removes. With it, it uses organizations of
its own on a running deployment and deletes them again. Exit 0: as promised; 1: a finding; 2: it could not be run.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from keepless.cli.options import output_command
from keepless.cli.outcome import FindingError
from keepless.cli.output import Screen
from keepless.prover.existing import prove_existing
from keepless.prover.report import Report
from keepless.prover.run import temporary_folders
from keepless.prover.throwaway import prove as prove_throwaway
from keepless.prover.wire import ProverError

__all__ = ["prove"]


@click.command()
@output_command
@click.option("--dir", "within", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Where to work.")
@click.option("--database-url", help="Prove on this empty database instead of a SQLite file; empty again afterwards.")
@click.option("--no-embedded", is_flag=True, help="Leave the embedded engine out (faster).")
@click.option("--base-url", help="Prove this running deployment instead; needs an operator key. Nothing is killed.")
@click.option("--admin-key", envvar="KEEPLESS_ADMIN_KEY", help="An operator key. [env: KEEPLESS_ADMIN_KEY]")
@click.option(
    "--data-dir", type=click.Path(path_type=Path, exists=True, file_okay=False), help="With --base-url: search it."
)
@click.option("--model", help="With --base-url: the model to ask. [default: the first]")
def prove(
    screen: Screen,
    /,
    *,
    within: Path | None,
    database_url: str | None,
    no_embedded: bool,
    base_url: str | None,
    admin_key: str | None,
    data_dir: Path | None,
    model: str | None,
) -> None:
    """Send unique markers through every path under every data control, then search everything that can hold a byte."""
    if base_url is None and (data_dir is not None or model is not None):
        raise click.UsageError("--data-dir and --model go with --base-url; without it a deployment is made and removed")
    if base_url is not None and not admin_key:
        raise click.UsageError("with --base-url an operator key is needed: set KEEPLESS_ADMIN_KEY")
    try:
        with screen.progress("proving") as advance:
            if base_url is None:
                report = prove_throwaway(
                    within or temporary_folders()[0],
                    embedded=not no_embedded,
                    database_url=database_url,
                    progress=advance,
                )
            else:
                report = prove_existing(base_url, admin_key or "", data_dir=data_dir, model=model, progress=advance)
    except ProverError as cannot:
        raise click.UsageError(f"the proof cannot be run: {cannot.why}") from None
    answer = report.answer()
    if not report.clean and screen.json:
        raise FindingError("something is not as promised", answer)
    screen.show(answer, lambda console: _show(console, report))
    if not report.clean:
        raise FindingError("something is not as promised; see the tables", {"error": {"message": "not as promised"}})


def _show(console: Console, report: Report) -> None:
    _show_requests(console, report)
    _show_places(console, report)
    for line in report.wrong:
        console.print(f"wrong: {line}")
    for control in report.controls:
        if not control.found:
            console.print(f"{control.place}: what was planted there was not found: this search proves nothing")
    for line in report.limits:
        console.print(f"note: {line}")
    verdict = "as promised" if report.clean else "NOT as promised"
    console.print(f"{len(report.outcomes)} requests with {len(report.markers)} markers: {verdict}")


def _show_requests(console: Console, report: Report) -> None:
    table = Table("setting", "requests", "kept", "wrong", title="What was answered", title_justify="left")
    asked, kept, wrong = Counter[str](), Counter[str](), Counter[str]()
    for outcome in report.outcomes:
        asked[outcome.setting] += 1
        kept[outcome.setting] += outcome.kept
        wrong[outcome.setting] += bool(outcome.wrong)
    for setting, number in asked.items():
        table.add_row(setting, str(number), str(kept[setting]), str(wrong[setting]))
    console.print(table)
    if any(wrong.values()):
        table = Table("case", "setting", "status", "what is wrong")
        for outcome in report.outcomes:
            if outcome.wrong:
                table.add_row(outcome.case, outcome.setting, str(outcome.status), outcome.wrong)
        console.print(table)


def _show_places(console: Console, report: Report) -> None:
    table = Table("when", "place", "items", "bytes", "unreadable", "markers found", title="What was searched")
    table.title_justify = "left"
    for when, place in report.searched:
        table.add_row(
            when, place.place, str(place.items), f"{place.size:,}", str(place.unreadable), str(len(place.findings))
        )
    console.print(table)
    findings: list[dict[str, Any]] = report.answer()["findings"]
    if findings:
        columns = ("when", "place", "what", "form", "marker", "part", "case", "setting")
        table = Table(*columns, title="What was found", title_justify="left")
        for finding in findings:
            table.add_row(*(str(finding[column] or "-") for column in columns))
        console.print(table)
