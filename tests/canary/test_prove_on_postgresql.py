"""The canary prover on the real server with PostgreSQL."""

from pathlib import Path

import pytest

from keepless.prover.deployment import Deployment
from keepless.prover.throwaway import prove
from keepless.prover.wire import ProverError, ask
from tests.support.others import others
from tests.support.postgres import Cluster

CASES = ["upstream: well", "upstream: broken", "upstream: cut, streamed", "request says store: false", "wrong type"]


def test_on_postgresql(tmp_path: Path, postgres: Cluster) -> None:
    without = [folder for folder in others(tmp_path) if folder != postgres.folder]
    with postgres.database() as url:
        report = prove(tmp_path, embedded=False, database_url=url, cases=[*CASES, "batches: done"], without=without)
        assert report.clean, report.answer()
        assert "job store rows" in {control.place for control in report.controls}
        rows = [searched.items for _, searched in report.searched if searched.place == "database rows"]
        assert min(rows) > 20
        # It left the database as empty as it was, so that it may be proved again; what is not empty is not touched.
        assert prove(tmp_path, embedded=False, database_url=url, cases=["wrong key"], without=without).clean
        with Deployment(
            tmp_path, {"database_url": url}, [{"id": "m", "engine": "openai", "base_url": "http://x"}]
        ) as d:
            d.start()
            with pytest.raises(ProverError):
                prove(tmp_path, embedded=False, database_url=url)
            assert ask(d.url, d.told["admin_key"], "GET", "/v1/organization/projects")["data"]
