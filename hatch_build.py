"""Build hook: compile the modules that every inference request runs through, with mypyc, into the wheel (ADR 0009).

The modules stand in `pyproject.toml`, `[tool.hatch.build.targets.wheel.hooks.custom]`; their sources are in the wheel
as well. Without a C compiler and Python's headers, or with KEEPLESS_COMPILE=0, the wheel is plain Python: the same
behaviour, at about half the speed.

Nothing is written into the source tree: everything happens on a copy in a temporary folder.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_SETUP = """
from setuptools import setup
from mypyc.build import mypycify
setup(name="keepless", packages=[], ext_modules=mypycify({arguments!r}, opt_level="2", strip_asserts=False))
"""


class Compile(BuildHookInterface):
    """Hatchling's hook; only for wheels that are installed as they are, never for editable ones."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and add what came out to the wheel."""
        if version == "editable" or os.environ.get("KEEPLESS_COMPILE", "1") == "0":
            return
        missing = _missing()
        if missing:
            self.app.display_warning(f"not compiled: {missing} is missing; Keepless will run, more slowly")
            return
        self._folder = tempfile.TemporaryDirectory(prefix="keepless-build-")
        root = Path(self._folder.name)
        shutil.copytree(Path(self.root, "src", "keepless"), root / "keepless")
        arguments = [f"--python-executable={sys.executable}", "--no-warn-no-return", *self.config["modules"]]
        (root / "setup.py").write_text(_SETUP.format(arguments=arguments))
        done = subprocess.run(
            [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"],
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode != 0:
            sys.stderr.buffer.write(done.stdout)
            raise SystemExit("the modules of the request path do not compile; KEEPLESS_COMPILE=0 installs plain Python")
        for built in root.rglob("*.so"):
            if "build" not in built.relative_to(root).parts:
                build_data["force_include"][str(built)] = built.relative_to(root).as_posix()
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Forget the copy."""
        folder = getattr(self, "_folder", None)
        if folder is not None:
            folder.cleanup()


def _missing() -> str | None:
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "Python.h (Debian: python3-dev)"
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    return None if shutil.which(compiler) else f"the C compiler {compiler}"
