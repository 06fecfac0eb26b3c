"""Golden files: compare, or write them anew with UPDATE_GOLDEN=1 (then read the diff)."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]


def assert_golden(path: str, text: str) -> None:
    """Compare `text` with the file at `path` (below the repository's root)."""
    file = ROOT / path
    if os.environ.get("UPDATE_GOLDEN") == "1":
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert file.exists(), f"{path} is missing; UPDATE_GOLDEN=1 writes it"
    assert file.read_text() == text, f"{path} is not what the code says; UPDATE_GOLDEN=1 writes it anew"
