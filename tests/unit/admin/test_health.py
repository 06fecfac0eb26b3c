"""Readiness and the exposition format."""

from pathlib import Path

from keepless.admin.health import Metric, MetricKind, exposition, readable
from keepless.db import Database
from tests.support.governed import FlakyDatabase


def test_a_database_that_answers(database: Database) -> None:
    assert readable(database).ok


def test_a_database_that_does_not(tmp_path: Path) -> None:
    flaky = FlakyDatabase(f"sqlite:///{tmp_path}/flaky.sqlite")
    flaky.down = True
    check = readable(flaky)
    assert (check.ok, check.why) == (False, "cannot be read")
    flaky.close()


def test_exposition() -> None:
    metric = Metric("x_total", MetricKind.COUNTER, "X.", (({"a": "1", "b": "2"}, 2.5), ({}, 10**15)))
    assert exposition([metric]) == (
        '# HELP x_total X.\n# TYPE x_total counter\nx_total{a="1",b="2"} 2.5\nx_total 1000000000000000\n'
    )
