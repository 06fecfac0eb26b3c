"""What is compiled (ADR 0009) can be: the rules that only the installed package would show to be broken."""

import ast
import functools
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
_HOOKS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]
COMPILED = frozenset(_HOOKS["custom"]["modules"])
# Classes that anyone may derive from: errors and Protocols stay ordinary Python classes when they are compiled.
FREE = ("Exception", "Protocol", "Generic")


def modules() -> dict[str, ast.Module]:
    return {str(path.relative_to(SOURCE)): ast.parse(path.read_text()) for path in SOURCE.rglob("*.py")}


MODULES = modules()


def name_of(base: ast.expr) -> str:
    return ast.unparse(base.value if isinstance(base, ast.Subscript) else base)


@functools.cache
def classes(module: str) -> dict[str, list[str]]:
    """The classes of a module with the names of their bases."""
    found = [node for node in ast.walk(MODULES[module]) if isinstance(node, ast.ClassDef)]
    return {node.name: [name_of(base) for base in node.bases] for node in found}


@functools.cache
def native() -> frozenset[tuple[str, str]]:
    """(module, class) of every compiled class that only compiled classes may derive from."""
    free = {
        (module, name)
        for module in COMPILED
        for name, bases in classes(module).items()
        if set(bases) & set(FREE) or name.endswith(("Error", "Problem"))
    }
    return frozenset((module, name) for module in COMPILED for name in classes(module)) - free


@functools.cache
def imported(module: str) -> dict[str, tuple[str, str]]:
    """The names that a module imports from others of ours: local name -> (module, name there)."""
    return {
        alias.asname or alias.name: (f"{node.module.replace('.', '/')}.py", alias.name)
        for node in ast.walk(MODULES[module])
        if isinstance(node, ast.ImportFrom) and node.module is not None
        for alias in node.names
    }


@pytest.mark.parametrize("module", sorted(COMPILED))
def test_a_compiled_module_exists_and_defines_nothing_that_msgspec_reads(module: str) -> None:
    """A compiled class keeps no annotations; msgspec would drop, without a word, what it then cannot read."""
    assert module in MODULES
    structs = [name for name, bases in classes(module).items() if any("Struct" in base for base in bases)]
    assert not structs


@pytest.mark.parametrize("module", sorted(COMPILED))
def test_a_compiled_module_does_not_combine_a_set_with_the_keys_of_a_dict(module: str) -> None:
    """mypy says that the outcome has the type of the left side, compiled code checks it, and it has not."""
    found = [
        ast.unparse(node)
        for node in ast.walk(MODULES[module])
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd | ast.BitOr | ast.BitXor | ast.Sub)
        if ast.unparse(node.right).endswith(".keys()")
    ]
    assert not found


@pytest.mark.parametrize("module", sorted(COMPILED))
def test_a_compiled_module_makes_no_routes(module: str) -> None:
    """Starlette takes a function that is none of Python's own for an application, and calls it as one."""
    assert not [there for there, _ in imported(module).values() if there == "starlette/routing.py"]


@pytest.mark.parametrize("module", sorted(MODULES.keys() - COMPILED))
def test_an_interpreted_class_derives_from_no_compiled_one(module: str) -> None:
    """Importing it would be a TypeError in the installed package, and nowhere else."""
    names, closed = imported(module), native()
    wrong = [name for name, bases in classes(module).items() if any(names.get(base) in closed for base in bases)]
    assert not wrong
