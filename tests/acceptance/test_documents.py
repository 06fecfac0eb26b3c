"""What the documents tell people to type works: shell lines and the Python of the README, against a running server."""

import os
import re
import subprocess
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.golden import ROOT
from tests.support.serve import EMBEDDED, Served, serve, upstream_models
from tests.support.upstream import Behaviour, MockUpstream

DOCUMENTS = sorted([ROOT / "README.md", *ROOT.glob("docs/howto/*.md")])


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("documents")


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    """A server that has kept a failed request and deleted it again, so that there is a receipt."""
    upstream = MockUpstream()
    models = [EMBEDDED, *upstream_models(upstream.start())]
    with serve(folder, models) as running:
        question = {"model": Behaviour.ERROR_500.value, "messages": [{"role": "user", "content": "x"}]}
        with pytest.raises(urllib.error.HTTPError) as failed:
            running.ask("POST", "/chat/completions", question, key="api_key")
        failed.value.close()
        (kept,) = running.ask("GET", "/organization/retained_objects")["data"]
        assert running.ask("DELETE", f"/organization/retained_objects/{kept['id']}")["deleted"] is True
        yield running
    upstream.stop()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_shell_lines_run(document: Path, folder: Path, served: Served, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "KEEPLESS_BASE_URL": served.url,
        "KEEPLESS_ADMIN_KEY": served.told["admin_key"],
        "KEEPLESS_API_KEY": served.api_key,
        "DATA_DIR": str(folder / "data"),
        "OUT": str(tmp_path / "out"),
    }
    for line in "".join(blocks(document, "sh")).splitlines():
        command = line.replace(".venv/bin/", f"{ROOT}/.venv/bin/")
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}: {done.stderr}"


def test_the_readme_s_python_answers(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks(ROOT / "README.md", "python")
    code = code.replace("http://127.0.0.1:8000", served.url).replace("sk-keepless-…", served.api_key)
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_the_python_of_batches_runs(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    for code in blocks(ROOT / "docs/howto/run-batches.md", "python"):
        told = code.replace("http://127.0.0.1:8000", served.url)
        keys = told.replace("ak-keepless-…", served.told["admin_key"]).replace("sk-keepless-…", served.api_key)
        exec(compile(keys, "run-batches.md", "exec"), {})
    said = capsys.readouterr().out
    assert '"custom_id":"hello"' in said
    assert "whsec_" in said
