"""A suite's points shared among machines: each takes a stable share, and the anchors that all take.

Whoever measures shard i of n knows its points without asking the others: points go one by one, the
longest first, to the shard that has least to do, by counted work at fixed rates (longest processing
time first; Graham, 1969: at most 4/3 of the best makespan).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.core.errors import UserError
from bench.core.load import load
from bench.core.specs.suite import Shard, Suite
from bench.measure.worker.process import Worker
from bench.run.basis import fixed_basis
from bench.run.forecast import Forecaster
from bench.run.jobs import Job, suite_jobs

ANCHORS = "anchors"
MOST = 10_000
DIGITS = 3  # of seconds, so that the last bits of a sum put no point elsewhere


def parse_shard(text: str) -> Shard:
    """ "3/10" -> the third of ten.  Raises UserError."""
    index, _, count = text.partition("/")
    if not all(part.isascii() and part.isdigit() and len(part) < 6 for part in (index, count)):
        raise UserError(f"--shard {text!r}: expected I/N, e.g. 3/10")
    if not 1 <= int(index) <= int(count) <= MOST:
        raise UserError(f"--shard {text}: expected 1 to N of N, at most {MOST:,} shards")
    return Shard(index=int(index), count=int(count))


def anchor_jobs(suite: Suite, device: str) -> list[Job]:
    """Points that every shard measures, so that cards can be held against one another.  device:
    cpu or cuda."""
    anchors = load(Suite, ANCHORS)
    if device == "cpu" and anchors.on_cpu is not None:
        anchors = load(Suite, anchors.on_cpu)
    return [job for job in suite_jobs(anchors) if job.point is not None]


def shares(seconds: Mapping[str, float], count: int) -> dict[str, int]:
    """Fingerprint -> its shard, from 1.  seconds: by fingerprint."""
    order = sorted(seconds, key=lambda name: (-_rounded(seconds[name]), name))
    loads, found = [0.0] * count, {}
    for name in order:
        lightest = min(range(count), key=lambda i: (loads[i], i))
        loads[lightest] += _rounded(seconds[name])
        found[name] = lightest + 1
    return found


def _rounded(seconds: float) -> float:
    return float(f"{seconds:.{DIGITS}g}")


def jobs_of_shard(
    jobs: Sequence[Job], anchors: Sequence[Job], seconds: Mapping[str, float], shard: Shard
) -> list[Job]:
    """Ceilings, anchors, then this shard's points, in the suite's order.  seconds: of every point,
    by fingerprint."""
    share = shares(seconds, shard.count)
    of_all = {job.fingerprint for job in anchors}
    mine = [
        job
        for job in jobs
        if job.point is not None
        and job.fingerprint not in of_all
        and share[job.fingerprint] == shard.index
    ]
    ranks = {job.point.recipe.parallel.ranks for job in mine if job.point.recipe.on_several_ranks}
    ceilings = [job for job in jobs if job.point is None and job.ranks in {1, *ranks}]
    return [*ceilings, *anchors, *mine]


def jobs_here(suite: Suite, worker: Worker, device: str) -> list[Job]:
    """A suite's jobs; of a shard, its own.  Everybody shares the points by the same seconds: of
    counted work, at fixed rates.  worker: to count with; device: cpu or cuda."""
    jobs = suite_jobs(suite)
    if suite.shard is None:
        return jobs
    seconds = fixed_seconds(suite, jobs, worker, device)
    return jobs_of_shard(jobs, anchor_jobs(suite, device), seconds, suite.shard)


def fixed_seconds(
    suite: Suite, jobs: Sequence[Job], worker: Worker, device: str
) -> dict[str, float]:
    """Fingerprint of a point -> seconds of its counted work at fixed rates; 0 where it cannot be
    counted."""
    fixed = Forecaster(suite, Path(), None, basis=fixed_basis(device))
    points = [job for job in jobs if job.point is not None]
    predicted = {job.fingerprint: fixed.predict(job, worker) for job in points}
    return {name: f.span.value if f else 0.0 for name, f in predicted.items()}
