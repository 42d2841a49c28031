"""MLPerf's published text-to-video rows, to lay beside a run."""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from bench.core.read_csv import read_csv

TABLE = "reference/published_multi_gpu.csv"
COLUMNS = ("id", "model", "gpu", "n_gpus", "scope", "latency_s", "dtype", "note", "source")


@dataclass(frozen=True)
class PublishedRow:
    """A system's result.  Provenance: claimed."""

    id: str
    gpu: str
    gpus: int
    scenario: str
    seconds: float
    """SingleStream: 90th percentile of latency; Offline: one over the system's rate."""
    dtype: str
    source: str

    @property
    def gpu_seconds(self) -> float:
        """Of one video."""
        return self.seconds * self.gpus


def mlperf_rows() -> list[PublishedRow]:
    """Every MLPerf row of the shipped table."""
    path = Path(str(resources.files("configs") / TABLE))
    rows = []
    for row in read_csv(path, COLUMNS):
        if not row["scope"].startswith("MLPerf"):
            continue
        scenario = row["scope"].removeprefix("MLPerf ").split()[0].rstrip(":")
        rows.append(
            PublishedRow(
                id=row["id"],
                gpu=row["gpu"],
                gpus=int(row["n_gpus"]),
                scenario=scenario,
                seconds=float(row["latency_s"]),
                dtype=row["dtype"],
                source=row["source"],
            )
        )
    return rows
