"""Where other tests write while one searches the machine: it would read all of that, and find nothing of its own."""

from pathlib import Path

from tests.support.postgres import PREFIX, temporary_root


def others(own: Path) -> list[Path]:
    """Pytest's folders of all its processes (that of this test, `own`, is one of them), and PostgreSQL's."""
    of_pytest = [folder for folder in own.parents if folder.name.startswith("pytest-of-")]
    assert of_pytest, "pytest's folders have another name now: what is left out here would be searched again"
    return [*of_pytest, *temporary_root().glob(f"{PREFIX}*")]
