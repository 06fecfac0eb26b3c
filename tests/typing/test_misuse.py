"""Misuse of the types that carry the promises does not compile: each case is given to mypy, with what it must say."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.golden import ROOT

HEAD = """
from keepless import log
from keepless.content import Content, Purpose
from keepless.log import Event
from keepless.policy.decide import decide
from keepless.policy.decision import Decision, Discard, Retain
from keepless.vault.door import Vault

def use(vault: Vault, content: Content, decision: Decision, permit: Retain, discard: Discard) -> None:
"""

MISUSE = {
    "put without a permit": ("vault.put(content)", "Missing positional argument"),
    "put with an undecided decision": ("vault.put(content, decision)", "incompatible type"),
    "put with a refusal": ("vault.put(content, discard)", "incompatible type"),
    "put of bytes": ('vault.put(b"text", permit)', "incompatible type"),
    "put of text": ('vault.put("text", permit)', "incompatible type"),
    "reveal without a purpose": ("content.reveal()", "Missing positional argument"),
    "reveal for a made-up purpose": ('content.reveal("curiosity")', "incompatible type"),
    "content as bytes": ("data: bytes = content", "Incompatible types in assignment"),
    "content as text": ("text: str = content", "Incompatible types in assignment"),
    "content joined": ('b"".join([content])', "incompatible type"),
    "content in a log line": ("log.emit(Event.SWEEP_DONE, what=content)", "incompatible type"),
    "text in a log line": ('log.emit(Event.SWEEP_DONE, what="text")', "incompatible type"),
    "a made-up event": ('log.emit("made:up:event")', "incompatible type"),
    "a permit without its fields": ("Retain()", "Missing positional argument"),
    "a permit changed": ("permit.expires_at_ms = None", "read-only"),
    "a subclass of content": ("class Mine(Content): pass", "final"),
    "deciding without a query": ("decide()", "Missing positional argument"),
}
ALLOWED = """
    if isinstance(decision, Retain):
        vault.put(content, decision)
    log.emit(Event.SWEEP_DONE, count=1, ok=True, purpose=Purpose.SEAL)
    data: bytes = content.reveal(Purpose.SEAL)
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What mypy says of every case, in one run."""
    folder = tmp_path_factory.mktemp("misuse")
    names = {}
    for number, (name, (code, _)) in enumerate(MISUSE.items()):
        names[f"case{number}.py"] = name
        (folder / f"case{number}.py").write_text(f"{HEAD}    {code}\n")
    (folder / "allowed.py").write_text(HEAD + ALLOWED)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--no-incremental",
            "--follow-imports=silent",
            *sorted(folder.iterdir()),
        ],
        cwd=ROOT,
        env={"MYPYPATH": str(ROOT / "src"), "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if ": error:" in line]
    found: dict[str, str] = {}
    for line in lines:
        file = Path(line.split(":", 1)[0]).name
        found[names.get(file, file)] = found.get(names.get(file, file), "") + line
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", MISUSE)
def test_misuse_does_not_compile(told: dict[str, str], name: str) -> None:
    assert MISUSE[name][1] in told.get(name, "")


def test_use_compiles(told: dict[str, str]) -> None:
    assert "allowed.py" not in told
