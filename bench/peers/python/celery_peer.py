"""Celery on Redis: the load of a peer. See measure.go for the lines that it exchanges with the
program that started it."""

import json
import math
import os
import subprocess
import sys
import time
from multiprocessing import get_context

import celery
import redis

SUBMITTERS = 8  # processes: a client's subscription to results is not safe between threads
WARM_TIME = 2  # seconds of jobs before the measurement
WARM_JOBS = 100  # of each submitter, at most
DRAIN_LIMIT = 300  # seconds for the last job

url = os.environ["PEER_URL"]
app = celery.Celery("celery_peer", broker=url + "/0", backend=url + "/1")
app.conf.update(
    task_acks_late=True,  # a job of a worker that dies runs again
    worker_prefetch_multiplier=64,  # as the guide to optimizing has it for short tasks
    broker_connection_retry_on_startup=True,
)


@app.task
def echo(text):
    return text


def submit(pipe):
    """Submit bursts of jobs, as the pipe asks for, and send their durations."""
    text = "x" * 500
    pipe.send("ready")
    while burst := pipe.recv():
        until, jobs = burst
        samples = []
        while len(samples) < jobs and time.monotonic() < until:
            start = time.monotonic()
            echo.delay(text)
            samples.append(time.monotonic() - start)
        pipe.send(samples)


def main():
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "celery_peer", "worker", "--loglevel", "ERROR"],
        cwd=os.path.dirname(os.path.abspath(__file__)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    context = get_context("spawn")
    pipes = []
    for _ in range(SUBMITTERS):
        ours, theirs = context.Pipe()
        context.Process(target=submit, args=(theirs,), daemon=True).start()
        pipes.append(ours)
    for pipe in pipes:
        pipe.recv()  # its process has loaded everything
    results = redis.Redis.from_url(url + "/1")
    submitted = 0

    def burst(seconds, jobs):
        nonlocal submitted
        began = time.monotonic()
        for pipe in pipes:
            pipe.send((began + seconds, jobs))
        samples = sorted(s for pipe in pipes for s in pipe.recv())
        submitted += len(samples)
        while results.dbsize() < submitted:  # a key for each result
            if time.monotonic() - began > seconds + DRAIN_LIMIT:
                sys.exit("not all jobs were done in time")
            time.sleep(0.01)

        def percentile(p):
            return samples[math.ceil(len(samples) * p / 100) - 1] * 1000

        return {
            "jobs": len(samples),
            "seconds": time.monotonic() - began,
            "p50_ms": percentile(50),
            "p99_ms": percentile(99),
        }

    burst(WARM_TIME, WARM_JOBS)
    print(json.dumps({"version": celery.__version__}), flush=True)
    if not sys.stdin.readline():
        sys.exit(1)
    print(json.dumps(burst(int(os.environ["PEER_MILLISECONDS"]) / 1000, math.inf)), flush=True)
    sys.stdin.readline()  # until the input ends
    worker.terminate()
    worker.wait()


if __name__ == "__main__":
    main()
