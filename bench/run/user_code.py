"""Users' own classes, tried before anything is measured: a mistake in one ends the run at once."""

from collections.abc import Iterable

from bench.core.errors import UserError
from bench.measure.worker.process import JobFailed, Worker
from bench.measure.worker.protocol import CountPoint
from bench.results.records import CeilingsRecord, PointRecord
from bench.run.jobs import Job
from models.python.spec import python_parts
from models.real_weights import WeightsNotNamed, place_of

COUNT_TIMEOUT_S = 600.0


def check_user_code(jobs: Iterable[Job], worker: Worker) -> None:
    """Count one point of each model that users' classes build.  Raises UserError with the file and
    line of what fails there."""
    tried = set()
    for job in jobs:
        if job.point is None or job.point.model.name in tried:
            continue
        if not any(python_parts(job.point.model)):
            continue
        tried.add(job.point.model.name)
        try:
            worker.run(CountPoint(point=job.point.as_counted), COUNT_TIMEOUT_S)
        except JobFailed as failure:
            if failure.outcome == "error":
                raise UserError(failure.reason) from None


def check_weights(jobs: Iterable[Job]) -> None:
    """Raises UserError where a job's real weights were not named."""
    for job in jobs:
        for digest in ((job.point and job.point.model.weights) or {}).values():
            try:
                place_of(digest)
            except WeightsNotNamed as error:
                raise UserError(f"model {job.point.model.name}: {error}") from None


def user_code_failures(records: Iterable[PointRecord | CeilingsRecord]) -> list[str]:
    """What failed in users' classes, or with their weights, while it was measured: a line each."""
    return [
        record.reason
        for record in records
        if isinstance(record, PointRecord)
        and record.outcome == "error"
        and record.reason
        and _of_user(record)
    ]


def _of_user(record: PointRecord) -> bool:
    model = record.point.get("model") or {}
    if model.get("weights"):
        return True
    parts = [model.get("denoiser"), model.get("vae"), *(model.get("text_encoders") or ())]
    return any(isinstance(part, dict) and "python" in part for part in parts)
