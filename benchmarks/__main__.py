"""`python -m benchmarks WHAT`: figures go to standard output and benchmarks/out/*.json."""

import argparse
import json
import shutil

from benchmarks import gateway
from benchmarks.batches import batches, fairness, recording
from benchmarks.engines import chatting, embedding, hearing, speaking, starting
from benchmarks.pages import pages
from benchmarks.running import Machine
from benchmarks.targets import OUT, TARGETS
from benchmarks.tuning import first_answer, training_speed
from benchmarks.uploads import upload
from benchmarks.vault import sweep, toggle
from benchmarks.words import recognising

_WHAT = ("gateway", "sweep", "toggle", "engines", "upload", "batches", "tuning", "words", "pages")
_SLOW = {"litellm": 4.0}  # so slow that its cells need no more than this


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", nargs="?", default="gateway", choices=_WHAT)
    parser.add_argument("--peers", default="all", help="comma-separated, `none`, or `all` that are installed")
    parser.add_argument("--cells", default=",".join(gateway.CELLS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--stored", type=int, default=1_000_000, help="sweep, toggle, pages: objects in the vault")
    parser.add_argument("--due", type=int, default=100_000, help="sweep: of which are due")
    parser.add_argument("--sentences", type=int, default=4, help="engines: of about 7 s each")
    parser.add_argument("--threads", type=int, default=1, help="engines: of the engine and of the library")
    parser.add_argument("--size", type=int, default=200_000_000, help="upload: bytes")
    parser.add_argument("--lines", type=int, default=50_000, help="batches: of the batch")
    parser.add_argument("--epochs", type=int, default=2, help="tuning")
    parser.add_argument("--examples", type=int, default=48, help="tuning")
    asked = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    (OUT / "run").mkdir(exist_ok=True)
    if asked.what == "gateway":
        _gateway(asked.peers, asked.cells.split(","), asked.repeats)
    elif asked.what == "batches":
        measured = {
            "batches": batches(asked.lines),
            "recording": recording(asked.lines),
            "fairness": fairness(organizations=10, each=10, lines=100),
        }
        print(json.dumps(measured, indent=1))
        _write("batches", measured)
    elif asked.what == "engines":
        _engines(asked.repeats, asked.sentences, asked.threads)
    elif asked.what == "tuning":
        speed, adapter = training_speed(asked.repeats, asked.threads, asked.epochs, asked.examples)
        tuned = {"training": speed, "first_answer": first_answer(asked.repeats, asked.threads, adapter)}
        print(json.dumps(tuned, indent=1))
        _write("tuning", tuned)
    elif asked.what == "words":
        errors = recognising()
        print(json.dumps(errors, indent=1))
        _write("words", errors)
    elif asked.what == "pages":
        shown = pages(asked.stored, asked.repeats)
        print(json.dumps(shown, indent=1))
        _write("pages", shown)
    elif asked.what == "upload":
        uploaded = upload(asked.size, asked.repeats)
        print(json.dumps(uploaded, indent=1))
        _write("upload", uploaded)
    else:
        found = sweep(asked.stored, asked.due) if asked.what == "sweep" else toggle(asked.stored, asked.repeats)
        print(json.dumps(found, indent=1))
        _write(asked.what, found)


def _engines(repeats: int, sentences: int, threads: int) -> None:
    found = {
        "starting": starting(repeats),
        "chatting": chatting(repeats, threads),
        "hearing": hearing(repeats, sentences, threads),
        "speaking": speaking(repeats, 10 * sentences),
        "embedding": embedding(repeats, texts=64),
    }
    print(json.dumps(found, indent=1))
    _write("engines", found)


def _gateway(peers: str, cells: list[str], repeats: int) -> None:
    if peers == "all":
        names = [name for name in TARGETS if name != "keepless" and _installed(name)]
    else:
        names = [] if peers == "none" else peers.split(",")
    with Machine([TARGETS[name] for name in ("keepless", *names)]) as machine:
        figures = gateway.measure(machine, cells, repeats, slow=_SLOW)
        # First where nothing can be kept: else what has been answered so far is held, in case it fails (capture_bytes).
        readers = {
            "keeps_nothing": gateway.slow_readers(machine, "keepless", "x-keepless-retention: zero\r\n"),
            "could_keep": gateway.slow_readers(machine, "keepless"),
        }
    print(f"\n{gateway.table(figures, cells)}\n\n{gateway.ratios(figures)}\n\n{readers}")
    _write("gateway", {"figures": figures, "slow_readers": readers})


def _installed(name: str) -> bool:
    return bool(shutil.which(name)) or (OUT / "peers" / name / ".installed").exists()


def _write(name: str, found: object) -> None:
    (OUT / f"{name}.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
