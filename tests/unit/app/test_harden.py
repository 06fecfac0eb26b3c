"""What a process forbids itself: each in a process of its own, looked at from outside."""

import subprocess
import sys

import pytest


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_no_core_dump_and_not_dumpable() -> None:
    done = run(
        "import ctypes, resource; from keepless.app.harden import harden; harden();"
        "print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    )
    assert done.stdout.strip() == "(0, 0) 0"


FAULTS = {
    "main thread": "raise ValueError('MARK' + 'ER')",
    "a thread": "t = threading.Thread(target=lambda: int('MARK' + 'ER')); t.start(); t.join()",
    "a destructor": "class D:\n    def __del__(self): int('MARK' + 'ER')\nd = D()\ndel d",
    "a library's log": "logging.getLogger('x').error('MARK' + 'ER')",
    "a loop's callback": "async def m():\n"
    "    harden.silence_loop(asyncio.get_running_loop())\n"
    "    asyncio.get_running_loop().call_soon(lambda: int('MARK' + 'ER'))\n"
    "    await asyncio.sleep(0.01)\n"
    "asyncio.run(m())",
    "a task nobody waits for": "async def bad(): raise ValueError('MARK' + 'ER')\n"
    "async def m():\n"
    "    harden.silence_loop(asyncio.get_running_loop())\n"
    "    t = asyncio.ensure_future(bad()); await asyncio.sleep(0.01); del t\n"
    "asyncio.run(m())",
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_says_where_but_not_what(fault: str) -> None:
    done = run(f"import asyncio, logging, threading\nfrom keepless.app import harden\nharden.silence()\n{fault}")
    assert "MARKER" not in done.stdout + done.stderr
    assert ("ValueError" in done.stderr) is ("logging" not in fault)


def test_a_child_dies_with_its_parent() -> None:
    done = run(
        "import subprocess, sys, os\n"
        "child = subprocess.Popen([sys.executable, '-c', 'from keepless.app.parent import die_with_parent; import os;"
        "die_with_parent(os.getppid()); print(1, flush=True); import time; time.sleep(60)'], stdout=subprocess.PIPE)\n"
        "child.stdout.read(1); print(child.pid, flush=True); os._exit(0)"
    )
    pid = int(done.stdout)
    for _ in range(100):
        try:
            with open(f"/proc/{pid}/stat") as stat:
                if stat.read().split(") ")[1][0] in "ZX":
                    return
        except FileNotFoundError:
            return
        run("import time; time.sleep(0.05)")
    raise AssertionError("the child lives on")


def test_whose_parent_is_somebody_else_by_now_does_not_begin() -> None:
    code = "import os; from keepless.app.parent import die_with_parent; die_with_parent(os.getppid() + {}); print('on')"
    assert run(code.format(0)).stdout == "on\n"
    assert (run(code.format(1)).returncode, run(code.format(1)).stdout) == (1, "")


def test_in_a_container_the_parent_may_be_process_1() -> None:
    code = "import os; from keepless.app.parent import die_with_parent; os.getppid = lambda: 1; die_with_parent({})"
    assert run(code.format(1)).returncode == 0
    assert run(code.format(7)).returncode == 1  # it was another one, which is dead
