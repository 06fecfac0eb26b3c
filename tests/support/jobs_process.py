"""A process with the job engine, told by its standard input what to do.

`python -m tests.support.jobs_process URL DIR [QUEUE...]`; without a queue it takes jobs of batches.

One JSON array a line: a verb of the port and its arguments; each is answered by one line, after the lines of jobs that
ran meanwhile. A job with argument 77 raises a marker; with 99 it runs until it is let go or killed.
"""

import json
import os
import sys
import threading
from pathlib import Path

from keepless.clock import SystemClock
from keepless.db import Database
from keepless.ids import Id
from keepless.jobs import durable
from keepless.jobs.durable import DurableJobs, prepare_store
from keepless.jobs.port import JobKind, Queue

MARKER = "MARKER-of-a-job"
durable._LOST_S = 0.2
durable._ENDING_S = 1


def main() -> None:
    url, folder = sys.argv[1], sys.argv[2]
    (Path(folder) / "cwd").mkdir(exist_ok=True)
    os.chdir(Path(folder) / "cwd")
    printing = threading.Lock()
    let_go = threading.Event()

    def say(*what: object) -> None:
        with printing:
            sys.stdout.write(json.dumps(what) + "\n")
            sys.stdout.flush()

    def run(batch_id: Id, number: int) -> None:
        say("began", batch_id, number)
        if number == 77:
            raise ValueError(MARKER, batch_id)
        if number == 99:
            let_go.wait()
        say("ran", batch_id, number)

    db = Database(url)
    at_once = {Queue(name): 4 for name in sys.argv[3:] or [Queue.BATCH]}
    jobs = DurableJobs(prepare_store(folder, url), db, SystemClock(), dict.fromkeys(JobKind, run), at_once=at_once)
    say("ready", jobs.id)
    for line in sys.stdin:
        verb, *arguments = json.loads(line)
        if verb == "let_go":
            let_go.set()
            say("told", None)
            continue
        try:
            if verb == "submit":
                *rest, priority = arguments
                typed = [Id(one) if isinstance(one, str) else one for one in rest[2:]]
                jobs.submit(JobKind(rest[0]), rest[1], *typed, priority=priority)
                say("told", None)
            elif verb == "pace":
                say("told", [it.polling_interval_sec for it in jobs._queues.values()])
            elif verb == "cancel":
                jobs.cancel(set(arguments))
                say("told", None)
            else:
                told = getattr(jobs, verb)()
                say("told", sorted(told) if isinstance(told, set) else told)
        except Exception as error:
            say("raised", type(error).__name__, str(error))
        if verb == "close":
            return


if __name__ == "__main__":
    main()
