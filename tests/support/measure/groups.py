"""A group of two ranks on a tiny model, and its processes."""

import os
from pathlib import Path

from bench.core.load import load_point
from bench.core.specs.suite import Sampling
from bench.measure.worker.protocol import MeasurePoint

SHORT = Sampling(target_relative_half_width=0.5, min_samples=3, max_samples=6, max_s=0.5)
LONG = Sampling(target_relative_half_width=1e-6, min_samples=3, max_samples=100_000, max_s=60)


def request(sampling: Sampling = SHORT, **degrees: int) -> MeasurePoint:
    changes = {"recipe.parallel": degrees, "recipe.dtype": "fp32"} if degrees else {}
    point = load_point("tiny", "tiny-image", "eager", {"recipe.dtype": "fp32"} | changes)
    return MeasurePoint(
        point=point.model_copy(update={"stages": ("denoise_step",)}), sampling=sampling
    )


def ranks() -> dict[int, int]:
    """Rank -> process, of the group below this process."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            environment = dict(
                line.split(b"=", 1)
                for line in (folder / "environ").read_bytes().split(b"\0")
                if b"=" in line
            )
        except OSError:
            continue
        mine = environment.get(b"LDT_BENCH_TEST_GROUP") == str(os.getpid()).encode()
        if mine and b"bench.measure.group.rank" in command:
            found[int(environment[b"RANK"])] = int(folder.name)
    return found
