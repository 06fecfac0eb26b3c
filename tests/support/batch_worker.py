"""A worker process over a test's folder: `python -m tests.support.batch_worker`, settings as JSON on standard input."""

import json
import sys

from keepless.app.harden import silence
from keepless.app.job_worker import run
from keepless.app.plan import Plan
from keepless.config import load
from tests.support.batching import FewFiles

if __name__ == "__main__":
    silence()
    settings = load(None, {}, **json.load(sys.stdin))
    sys.exit(run(Plan(settings=settings, listening=-1, engines=[], sweeps=False), FewFiles()))
