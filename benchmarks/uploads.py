"""What an upload costs beside `cp` and `sha256sum` of the same file, on the same disk, in turn.

Holds: `upload`. A server of its own (one process, SQLite, local files) takes one file of 200 MB by a plain socket,
again and again; between two uploads the file is copied and its digest is made, which is what keeping a file costs
anybody who does not seal it: once with `sync`, as durable as an upload is when it is answered, and once without.
Memory: the most that the serving process had resident, before and after.
"""

import http.client
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.targets import OUT

__all__ = ["upload"]

_MODEL = '[[models]]\nid = "m"\nengine = "openai"\nbase_url = "http://127.0.0.1:9/v1"\nretention = "zero"\n'
_BOUNDARY = "0123456789abcdef0123456789abcdef"  # as long as the official clients' are
_LINE = b"--" + _BOUNDARY.encode()
_FORM = _LINE + b'\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
_FORM += _LINE + b'\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
_DURABLE, _PLAIN = "cp + sync + sha256sum", "cp + sha256sum"
_TAIL = b"\r\n" + _LINE + b"--\r\n"


def upload(size: int, repeats: int) -> dict[str, object]:
    """Seconds of each, interleaved; medians, and their ratios."""
    folder = OUT / "upload"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path = folder / "file"
    path.write_bytes(os.urandom(size))
    (folder / "keepless.toml").write_text(_MODEL)
    command = [sys.executable, "-m", "keepless", "serve", "--json", "--port", "0"]
    command += ["--config", str(folder / "keepless.toml"), "--data-dir", str(folder / "data"), "--no-worker"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        port, key = int(told["url"].rpartition(":")[2]), told["api_key"]
        _send(port, key, path)
        before = _peak(process.pid)
        seconds: dict[str, list[float]] = {"upload": [], _DURABLE: [], _PLAIN: []}
        for _ in range(repeats):
            began = time.monotonic()
            _send(port, key, path)
            seconds["upload"].append(time.monotonic() - began)
            for name in (_DURABLE, _PLAIN):
                began = time.monotonic()
                subprocess.run(["cp", str(path), str(folder / "copy")], check=True)
                if name == _DURABLE:
                    subprocess.run(["sync", str(folder / "copy")], check=True)
                subprocess.run(["sha256sum", str(path)], check=True, stdout=subprocess.DEVNULL)
                seconds[name].append(time.monotonic() - began)
        after = _peak(process.pid)
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    return {
        "bytes": size,
        "seconds": seconds,
        "median_mb_a_second": {name: round(size / median / 1e6, 1) for name, median in medians.items()},
        "upload_takes_times": {name: round(medians["upload"] / medians[name], 2) for name in (_DURABLE, _PLAIN)},
        "peak_mib_before_and_after": [before >> 20, after >> 20],
    }


def _send(port: int, key: str, path: Path) -> None:
    length = len(_FORM) + path.stat().st_size + len(_TAIL)
    head = f"POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
    head += f"content-type: multipart/form-data; boundary={_BOUNDARY}\r\ncontent-length: {length}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port)) as raw, path.open("rb") as file:
        raw.sendall(head.encode() + _FORM)
        raw.sendfile(file)
        raw.sendall(_TAIL)
        reply = http.client.HTTPResponse(raw)
        reply.begin()
        if reply.status != 200:
            raise RuntimeError(reply.read())
        reply.read()


def _peak(process: int) -> int:
    (line,) = [one for one in Path(f"/proc/{process}/status").read_text().splitlines() if one.startswith("VmHWM")]
    return int(line.split()[1]) * 1024
