"""What is checked and said when a run goes on with an earlier result."""

import warnings
from pathlib import Path

from bench.core.errors import UserError
from bench.core.specs.suite import Suite
from bench.results.environment import Environment, cards_in
from bench.results.records import FINISHED, CeilingsRecord, PointRecord
from bench.results.store import Store, read_suite
from bench.run.jobs import Job, suite_jobs


def check_resume(directory: Path, suite: Suite) -> None:
    """A suite may have grown since, and nothing else: what is measured must still be part of it, in
    the same way.  A shared one may not grow, since each share would be another then."""
    before = read_suite(directory)
    if before.name != suite.name:
        raise UserError(f"--resume {directory}: it holds suite {before.name}, not {suite.name}")
    if before.sampling != suite.sampling:
        raise UserError(
            f"--resume {directory}: suite {suite.name} sampled otherwise then; start a new result"
        )
    then, now = suite_jobs(before), suite_jobs(suite)  # of a share too: all that is shared
    gone = _without(then, {job.fingerprint for job in now})
    if gone:
        raise UserError(
            f"--resume {directory}: suite {suite.name} had"
            f" {', '.join(gone[:3])}{f' and {len(gone) - 3} more' if len(gone) > 3 else ''} then,"
            " and has not now; start a new result"
        )
    new = _without(now, {job.fingerprint for job in then})
    if new and suite.shard is not None:
        raise UserError(
            f"--resume {directory}: suite {suite.name} has grown by {new[0]}, and is shared"
            " otherwise now; start a new result"
        )


def _without(jobs: list[Job], fingerprints: set[str]) -> list[str]:
    return [job.label for job in jobs if job.fingerprint not in fingerprints]


def jobs_left(directory: Path | None, suite: Suite, jobs: list[Job]) -> list[Job]:
    """Those that a run measures where it goes on with a result; all of them where with none."""
    if directory is None:
        return jobs
    check_resume(directory, suite)
    before = Store(directory).records()
    finished = {record.fingerprint for record in before if record.outcome in FINISHED}
    return [job for job in jobs if job.fingerprint not in finished]


def check_environment(
    records: list[PointRecord | CeilingsRecord], now: Environment, directory: Path, mix: bool
) -> None:
    """Every environment among the records must be this one, but for the code and for which card of
    the same kind it is, unless mixing was asked for."""
    unlike = list(dict.fromkeys(d for r in records for d in r.environment.differences(now)))
    versions = [d for d in unlike if d.startswith("code_version")]
    if unlike != versions and not mix:
        raise UserError(
            f"--resume {directory}: measured elsewhere or otherwise: {'; '.join(unlike)}; "
            "start a new result instead of mixing the two (or tell it to, with --mix-environments)"
        )
    if unlike != versions:
        warnings.warn(
            f"{directory}: environments are mixed in it: {'; '.join(unlike)}; each record says its"
            " own, and `calibrate` refuses records of several devices",
            stacklevel=2,
        )
    elif versions:
        warnings.warn(
            f"{directory}: measured with another version of ldt-bench: {versions[0]}", stacklevel=2
        )
    if cards := cards_in([*(r.environment for r in records), now]):
        warnings.warn(
            f"{directory}: measured on {cards}; this is {now.device_uuid_hash}, and each record"
            " says its own",
            stacklevel=2,
        )


def say_what_starts_anew(
    directory: Path,
    jobs: list[Job],
    finished: set[str],
    store: Store,
    prior: dict[str, dict[str, list[float]]],
) -> None:
    """Samples of another card, or of other code, are not continued: a record's are all of one
    environment."""
    begun = store.prior_samples()
    anew = [
        job.label
        for job in jobs
        if job.fingerprint not in finished
        and job.fingerprint in begun
        and job.fingerprint not in prior
    ]
    if anew:
        more = f" and {len(anew) - 1} more" if len(anew) > 1 else ""
        warnings.warn(
            f"{directory}: {anew[0]}{more}: begun on another card or with other code, and measured"
            " anew here",
            stacklevel=2,
        )
