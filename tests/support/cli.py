"""The command line in a process of its own, and a suite of seconds that has every stage."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

from support.paths import ROOT

PATIENCE = float(os.environ.get("LDT_BENCH_TEST_PATIENCE", "1"))
"""So many times as long is waited for a process, on a machine that others use too; no test asks how
long one took."""


MICRO_SUITE = """
description: a few points in a few seconds
ceilings: true
dtype: fp32
sampling: {target_relative_half_width: 0.5, min_samples: 3, max_samples: 6, max_s: 0.2}
point_timeout_s: PATIENT
points:
  - {model: tiny, workload: tiny-image, recipe: eager,
     stages: [denoise_step, vae_decode, vae_encode, text_encode]}
  - {model: tiny, workload: tiny-clip, recipe: eager, stages: [denoise_step, vae_decode]}
  - {model: tiny, workload: tiny-image, recipe: eager, set: {denoiser.depth: 2}}
  - {model: tiny, workload: tiny-clip, recipe: eager, set: {denoiser.depth: 2}}
  - {model: tiny-factorised, workload: tiny-clip, recipe: eager}
headline: {model: tiny, workload: tiny-image, recipe: eager}
""".replace("PATIENT", f"{60 * PATIENCE:g}")


def cli(
    *args: str, cwd: Path | None = None, env: dict[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess:
    """Run ldt-bench in a process of its own, as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "bench.cli", *args],
        capture_output=True,
        text=True,
        cwd=cwd or ROOT,
        env={**os.environ, **(env or {})},
        timeout=PATIENCE * timeout,
        check=False,
    )


IMAGE = {"model": "tiny", "workload": "tiny-image", "recipe": "eager"}
FIVE_POINTS = [
    {**IMAGE, "stages": ["denoise_step", "vae_decode", "vae_encode", "text_encode"]},
    *({**IMAGE, "set": {"denoiser.depth": depth}} for depth in (1, 2, 3)),
    {**IMAGE, "model": "tiny-factorised"},
]
"""Points whose counting and measuring take a tenth of a second each, eight stages in all."""


def variant(tmp_path: Path, name: str = "variant", **change) -> Path:
    """A suite of five small points, without ceilings, and with some of its fields otherwise."""
    suite = yaml.safe_load(MICRO_SUITE) | {"ceilings": False, "points": FIVE_POINTS}
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump(suite | change))
    return path
