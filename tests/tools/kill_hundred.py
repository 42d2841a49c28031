"""Kill a suite with SIGKILL at random moments and resume it, over and over: nothing measured is
lost, nothing repeated.

    python tests/tools/kill_hundred.py [--kills 100] [--seed 0]

The last line is JSON.  `test_suite.py` does a few of these; this does the hundred.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUITE = """
description: points measured alone and in turns, each long enough to be hit
ceilings: false
sampling: {target_relative_half_width: 1.0e-6, min_samples: 20, max_samples: 40, max_s: 1.5}
point_timeout_s: 120
points:
  - {model: tiny, workload: tiny-image, recipe: eager-fp32,
     stages: [denoise_step, vae_decode, text_encode]}
  - {model: tiny, workload: [tiny-clip, tiny-wide], recipe: eager-fp32}
  - {model: tiny, workload: [tiny-image, tiny-clip], recipe: eager-fp32, together: true,
     set: {denoiser.depth: 2}}
headline: {model: tiny, workload: tiny-image, recipe: eager-fp32}
"""
POINTS = 5


class Broken(AssertionError):
    """A promise was not kept."""


def lines(path: Path) -> list[bytes]:
    """Whole lines: the one that the kill tore is no measurement yet."""
    return path.read_bytes().split(b"\n")[:-1] if path.is_file() else []


def check(
    directory: Path, before: tuple[list[bytes], list[bytes]]
) -> tuple[list[bytes], list[bytes]]:
    """Raises Broken where a line of before is gone, or a point finished twice, or a record leaves
    out a sample."""
    records, samples = lines(directory / "records.jsonl"), lines(directory / "samples.jsonl")
    for name, old, new in (("records", before[0], records), ("samples", before[1], samples)):
        if new[: len(old)] != old:
            raise Broken(f"{name}.jsonl lost what it had")
    parsed = [json.loads(line) for line in records]
    done = [r["fingerprint"] for r in parsed if r["outcome"] in ("ok", "unstable")]
    if len(set(done)) != len(done):
        raise Broken("a point was measured twice")
    taken: dict[tuple[str, str], list[float]] = {}
    for line in samples:
        entry = json.loads(line)
        taken.setdefault((entry["fingerprint"], entry["stage"]), []).extend(entry["samples_s"])
    for record in parsed:
        for stage, timing in record["timings"].items():
            if timing["samples_s"] != taken[record["fingerprint"], stage]:
                raise Broken(
                    f"{record['model']} {stage}: the record's samples are not those that were taken"
                )
    return records, samples


def run_once(kills: int, rng: random.Random, root: Path) -> tuple[int, list[float]]:
    """One result from its start to its end, killed on the way -> (kills, seconds into each
    life)."""
    suite, killed, moments = root / "kill.yaml", 0, []
    suite.write_text(SUITE)
    state: tuple[list[bytes], list[bytes]] = ([], [])
    while True:
        found = list(root.glob("cpu/*/suite.json"))
        where = ["--resume", str(found[0].parent)] if found else ["--out", str(root)]
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.cli", "run", str(suite), "--device", "cpu", *where],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        start, life = time.monotonic(), rng.uniform(1.0, 9.0)
        while process.poll() is None and (killed >= kills or time.monotonic() - start < life):
            time.sleep(0.02)
        ended = process.poll() is not None
        if not ended:
            os.killpg(
                process.pid, signal.SIGKILL
            )  # the worker leads a group of its own, and dies with its parent
            killed += 1
            moments.append(time.monotonic() - start)
        _, stderr = process.communicate()
        found = list(root.glob("cpu/*/suite.json"))
        if found:
            state = check(found[0].parent, state)
        if ended:
            if process.returncode:
                raise Broken(f"exit {process.returncode}: {stderr.decode()[-300:]}")
            if len({json.loads(line)["fingerprint"] for line in state[0]}) != POINTS:
                raise Broken("a point is missing at the end")
            return killed, moments


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng, killed, results, moments = random.Random(args.seed), 0, 0, []
    while killed < args.kills:
        with tempfile.TemporaryDirectory() as root:
            now, when = run_once(args.kills - killed, rng, Path(root))
        killed, results, moments = killed + now, results + 1, moments + when
        print(f"{killed} kills, {results} results whole", file=sys.stderr)
    print(
        json.dumps(
            {
                "kills": killed,
                "results": results,
                "lost": 0,
                "repeated": 0,
                "killed_after_s": {"min": round(min(moments), 2), "max": round(max(moments), 2)},
            }
        )
    )


if __name__ == "__main__":
    main()
