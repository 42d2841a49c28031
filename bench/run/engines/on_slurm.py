"""A suite on a Slurm cluster: an array of shards through submitit, requeued where one is preempted,
and merged when all are done."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.core.errors import EnvironmentFault, UserError
from bench.core.specs.suite import Suite
from bench.measure.worker.parent import child_environment
from bench.results.merge import merge
from bench.results.store import disk_faults
from bench.run.shards import MOST

SCHEME = "slurm://"
MINUTES = 120


def parse_slurm(text: str) -> tuple[str, int]:
    """ "slurm://gpu/10" -> ("gpu", 10): the partition, and as many shards.  Raises UserError."""
    partition, _, count = text.removeprefix(SCHEME).partition("/")
    known = partition and count.isascii() and count.isdigit() and 1 <= int(count) <= MOST
    if not known:
        raise UserError(f"--on {text!r}: expected slurm://PARTITION/SHARDS, e.g. slurm://gpu/10")
    return partition, int(count)


@dataclass
class ShardTask:
    """One shard, as a job of the array.  Called on a node; called again where it was requeued, and
    then it goes on with its own result."""

    suite: str
    """A file that every node sees."""
    shard: str
    device: str | None
    out: str
    """A folder of this shard alone."""

    def __call__(self) -> str:
        """-> the result's directory.  Raises RuntimeError where it could not be measured."""
        command = [sys.executable, "-m", "bench.cli", "run", self.suite, "--json", "--quiet"]
        command += ["--shard", self.shard, "--out", self.out]
        command += ["--device", self.device] if self.device else []
        begun = self._begun()
        command += ["--resume", begun] if begun else []
        done = subprocess.run(
            command, env=child_environment(), stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode not in (0, 1):
            raise RuntimeError(f"shard {self.shard} ended with exit code {done.returncode}")
        return json.loads(done.stdout.splitlines()[-1])["result_dir"]

    def _begun(self) -> str | None:
        """The result of this shard that an earlier call left: the only one in its own folder."""
        found = sorted(Path(self.out).glob("*/*/records.jsonl"))
        return str(found[-1].parent) if found else None

    def checkpoint(self) -> Any:
        """What submitit submits again after a preemption."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@dataclass(frozen=True, kw_only=True)
class SlurmRun:
    """A suite as an array of shards."""

    suite: Suite
    device: str | None
    partition: str
    count: int
    root: Path
    """On a file system that every node sees."""
    resume: Path | None = None
    cluster: str = "slurm"
    """submitit's; local runs the shards as processes here."""
    watch: Callable[[int, int, str], None] = lambda done, total, label: None
    opened: Callable[[Path], None] = lambda directory: None

    def measure(self) -> Path:
        """Submit, wait, merge -> the merged result.  Raises EnvironmentFault where submitit or
        Slurm cannot be had, and where a shard could not be measured: the others' results are
        kept."""
        jobs = self._submitted()
        found, failed = [], []
        for index, job in enumerate(jobs, 1):
            self.watch(index - 1, self.count, f"shard {index}/{self.count}")
            try:
                found.append(Path(job.result()))
            except Exception as error:  # submitit wraps whatever the node raised
                failed.append(f"shard {index}/{self.count}: {str(error).strip().splitlines()[-1]}")
        self.watch(self.count, self.count, "done")
        if failed:
            kept = f"; what was measured is in {', '.join(map(str, found))}" if found else ""
            raise EnvironmentFault(f"{failed[0]}{kept}")
        return found[0] if len(found) == 1 else merge(found, self._merged(found))

    def _merged(self, found: list[Path]) -> Path:
        """Beside what a run of one machine would write."""
        return self.root / found[0].parent.name / f"{found[0].name}-merged"

    def _submitted(self) -> list[Any]:
        if self.cluster == "slurm" and shutil.which("sbatch") is None:
            raise EnvironmentFault(
                "no sbatch here: --on slurm:// submits jobs, so run it on a login node of the"
                " cluster (--shards-here shares a suite among the GPUs of one machine)"
            )
        try:
            import submitit
        except ImportError:
            raise EnvironmentFault(
                "--on slurm:// needs submitit: pip install 'ldt-bench[slurm]'"
            ) from None
        # Of this run alone: a shard goes on with whatever lies in its folder.
        stem = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}_{self.suite.name}"
        folder = (self.root / "slurm" / stem).absolute()
        with disk_faults(folder, measured=False):
            folder.mkdir(parents=True)
        suite = folder / f"{self.suite.name}.yaml"
        suite.write_text(self.suite.model_dump_json(exclude={"name", "shard"}))
        try:
            executor = submitit.AutoExecutor(folder=folder / "jobs", cluster=self.cluster)
        except RuntimeError as error:
            raise EnvironmentFault(f"--on slurm://: {str(error).splitlines()[0]}") from None
        gpus = 0 if self.device == "cpu" else 1
        executor.update_parameters(
            name="ldt-bench",
            timeout_min=MINUTES,
            gpus_per_node=gpus,
            cpus_per_task=8 if gpus else 1,
        )
        if executor.cluster == "slurm":
            requeue = {"requeue": True}
            executor.update_parameters(
                slurm_partition=self.partition, slurm_additional_parameters=requeue
            )
        # Each by itself, so that a preempted one comes back through its own `checkpoint`.
        with executor.batch():
            return [executor.submit(task) for task in self._tasks(folder, suite)]

    def _tasks(self, folder: Path, suite: Path) -> list[ShardTask]:
        return [
            ShardTask(
                str(suite),
                f"{index}/{self.count}",
                self.device,
                str(folder / f"shard-{index}"),
            )
            for index in range(1, self.count + 1)
        ]
