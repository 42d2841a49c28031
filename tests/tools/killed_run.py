"""One life of a run that is to be killed: its processes, and what its directory keeps."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from pydantic import TypeAdapter, ValidationError  # noqa: E402

from bench.results.records import FINISHED, Record  # noqa: E402 (this is run by its path)

SUITE = """
description: points measured alone and in turns, each long enough to be hit
ceilings: false
dtype: fp32
sampling: {target_relative_half_width: 1.0e-6, min_samples: 300, max_samples: 300, max_s: 1.5}
point_timeout_s: 120
points:
  - {model: tiny, workload: tiny-image, recipe: eager,
     stages: [denoise_step, vae_decode, text_encode]}
  - {model: tiny, workload: [tiny-clip, tiny-wide], recipe: eager}
  - {model: tiny, workload: [tiny-image, tiny-clip], recipe: eager, together: true,
     set: {denoiser.depth: 2}}
headline: {model: tiny, workload: tiny-image, recipe: eager}
"""
POINTS = 5
MARK = "LDT_BENCH_KILL_MARK"
GONE_S = 60.0
"""A process that is still there so long after its parent was killed was left behind."""
HANGS_S = 900.0
POLL_S = 0.02
RECORD: TypeAdapter = TypeAdapter(Record)


class Broken(AssertionError):
    """A run did what no kill explains."""


class Life:
    """A run from its start, or from where an earlier one was killed, to its end."""

    def __init__(self, root: Path):
        suite, self.root, self.mark = root / "kill.yaml", root, uuid.uuid4().hex
        suite.write_text(SUITE)
        found = directory_in(root)
        where = ["--resume", str(found)] if found else ["--out", str(root)]
        self.began = time.monotonic()
        with open(root / "stdout", "w") as out, open(root / "stderr", "w") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bench.cli", "run", str(suite), "--device", "cpu", *where],
                cwd=ROOT,
                stdout=out,
                stderr=said,
                env={**os.environ, MARK: self.mark},
                start_new_session=True,
            )

    @property
    def over(self) -> bool:
        if time.monotonic() - self.began > HANGS_S:
            raise Broken(f"a run is there after {HANGS_S:.0f} s")
        return self.process.poll() is not None

    def worker(self) -> int | None:
        """The process that measures, where there is one."""
        for pid in self.alive():
            command = (Path("/proc") / str(pid) / "cmdline").read_bytes()
            if b"bench.measure.worker.main" in command and pid != self.process.pid:
                return pid
        return None

    def alive(self) -> list[int]:
        """Every process that this run started and that is no zombie: they inherit its mark."""
        found, mark = [], f"{MARK}={self.mark}".encode()
        for variables in Path("/proc").glob("[0-9]*/environ"):
            try:
                marked = mark in variables.read_bytes().split(b"\0")
            except OSError:  # another user's, or gone meanwhile
                continue
            if marked:
                found.append(int(variables.parent.name))
        return found

    def wait_for_worker(self, other_than: int | None = None) -> bool:
        """Until there is one -> False where the run ended before."""
        while not self.over:
            if self.worker() not in (None, other_than):
                return True
            time.sleep(POLL_S)
        return False

    def wait_for_samples(self) -> bool:
        """Until more is measured than there is now -> False where the run ended."""
        before = _size(directory_in(self.root))
        while not self.over:
            if _size(directory_in(self.root)) > before:
                return True
            time.sleep(POLL_S)
        return False

    def sleep(self, seconds: float) -> bool:
        """-> False where the run ended meanwhile."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.over:
            time.sleep(POLL_S)
        return not self.over

    def end(self) -> int:
        """Wait for it -> its exit code."""
        while not self.over:
            time.sleep(0.1)
        return self.process.returncode

    def left_behind(self) -> tuple[int, float]:
        """(processes that outlive the run, seconds until the last other one was gone); they are
        ended."""
        self.process.wait()
        start = time.monotonic()
        while (pids := self.alive()) and time.monotonic() - start < GONE_S:
            time.sleep(POLL_S)
        for pid in pids:
            send(pid, signal.SIGKILL)
        return len(pids), time.monotonic() - start

    def said(self) -> str:
        return (self.root / "stderr").read_text(errors="replace")[-500:]


def send(pid: int | None, number: int) -> bool:
    """-> whether there was such a process."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, TypeError):
        return False
    return True


def directory_in(root: Path) -> Path | None:
    found = list(root.glob("cpu/*/suite.json"))
    return found[0].parent if found else None


def _size(directory: Path | None) -> int:
    path = directory / "samples.jsonl" if directory else None
    return path.stat().st_size if path and path.is_file() else 0


class Kept:
    """What a result directory had, and what became of it."""

    def __init__(self) -> None:
        self.lines: dict[str, list[bytes]] = {"records.jsonl": [], "samples.jsonl": []}
        self.finished: list[str] = []
        self.faults: Counter[str] = Counter()
        """lost, repeated and invalid, as far as it was looked at."""

    def look(self, directory: Path | None) -> None:
        """Compare what is there with what was there before."""
        if directory is None:
            return
        for name, before in self.lines.items():
            now = _whole_lines(directory / name)
            kept = sum(a == b for a, b in zip(before, now, strict=False))
            self.faults["lost"] += len(before) - kept
            self.lines[name] = now
        records = [_record(line) for line in self.lines["records.jsonl"]]
        self.faults["invalid"] = records.count(None)  # of all lines, so it is not added up
        read = [record for record in records if record is not None]
        self.finished = [r.fingerprint for r in read if r.outcome in FINISHED]
        self.faults["repeated"] = len(self.finished) - len(set(self.finished))
        self.faults["left out"] = self._left_out(read)

    def _left_out(self, records: list[Any]) -> int:
        """Stages whose record has not exactly the samples that were taken."""
        taken: dict[tuple[str, str], list[float]] = {}
        for entry in map(json.loads, self.lines["samples.jsonl"]):
            taken.setdefault((entry["fingerprint"], entry["stage"]), []).extend(entry["samples_s"])
        return sum(
            timing.samples_s != taken[record.fingerprint, stage]
            for record in records
            for stage, timing in record.timings.items()
        )

    def samples(self) -> dict[tuple[str, str], list[float]]:
        """(label, stage) -> seconds, of every point's record."""
        records = map(RECORD.validate_json, self.lines["records.jsonl"])
        return {(r.label, stage): t.samples_s for r in records for stage, t in r.timings.items()}


def _whole_lines(path: Path) -> list[bytes]:
    """The line that a kill tore is no measurement yet."""
    return path.read_bytes().split(b"\n")[:-1] if path.is_file() else []


def _record(line: bytes) -> Any:
    """None for a line that is no record."""
    try:
        return RECORD.validate_json(line)
    except ValidationError:
        return None
