"""A process at a shared SQLite ledger: `crowd.py submit|work LEDGER KEY_ID`. Starts when it is sent a line.

submit: accepts jobs without end, printing each id when the ledger has taken it. work: in eight threads, submits jobs,
claims as many and completes them, then prints what it submitted and claimed as JSON.
"""

import json
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from darkroom.ledger.contract import Submission
from darkroom.ledger.sqlite import SqliteLedger
from ledgers import RESULT, make_edit

THREADS = 8
JOBS_A_THREAD = 20


def submission(key_id):
    return Submission(id=uuid.uuid4().hex, key_id=key_id, slug="s", edit=make_edit(), price_micro=10)


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def submit(ledger, key_id):
    while True:
        say(ledger.accept(submission(key_id)).job.id)


def work(ledger, key_id):
    def run(worker):
        submitted, claimed = [], []
        while len(claimed) < JOBS_A_THREAD:
            if len(submitted) < JOBS_A_THREAD:
                submitted.append(ledger.accept(submission(key_id)).job.id)
            job, lease = ledger.claim(worker)
            ledger.complete(lease, RESULT)
            claimed.append(job.id)
        return submitted, claimed

    with ThreadPoolExecutor(THREADS) as pool:
        done = list(pool.map(run, [f"w{number}" for number in range(THREADS)]))
    say(json.dumps({"submitted": [i for ids, _ in done for i in ids], "claimed": [i for _, ids in done for i in ids]}))


if __name__ == "__main__":
    what, path, key_id = sys.argv[1:]
    sys.stdin.readline()
    ledger = SqliteLedger(Path(path), lease_s=30, retention_s=3600)
    {"submit": submit, "work": work}[what](ledger, key_id)
    ledger.close()
