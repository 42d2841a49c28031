"""Results of any size for the explore page, made from the lines of a real one: of full length,
names and times varied."""

import json
import random
from pathlib import Path

RECIPES, GPUS = (
    ("eager-bf16", "compile-bf16", "fp8", "cudnn-bf16"),
    ("h100-sxm", "h200", "l40s", "a100-80gb", "rtx-4090"),
)


def write_results(root: Path, like: Path, points: int, per_result: int = 100) -> None:
    """`points` records in results of `per_result`, beside one copy of `like`'s calibration in each
    tenth of them."""
    draw = random.Random(0)
    lines = [json.loads(line) for line in (like / "records.jsonl").read_text().splitlines()]
    lines = [
        line for line in lines if line["kind"] == "point" and "denoise_step" in line["timings"]
    ]
    models = sorted({line["model"] for line in lines}) + [f"model-{i}" for i in range(30)]
    for first in range(0, points, per_result):
        gpu, number = draw.choice(GPUS), first // per_result
        directory = root / gpu / f"20260101T{number:06d}Z_made"
        directory.mkdir(parents=True)
        with open(directory / "records.jsonl", "w") as file:
            for i in range(first, min(first + per_result, points)):
                record, factor = (
                    json.loads(json.dumps(draw.choice(lines))),
                    draw.lognormvariate(0, 1),
                )
                record |= {
                    "fingerprint": f"{i:016x}",
                    "model": draw.choice(models),
                    "recipe": draw.choice(RECIPES),
                    "tokens": max(1, int(record["tokens"] * draw.lognormvariate(0, 1))),
                }
                record["environment"]["gpu"] = gpu
                for timing in record["timings"].values():
                    for key in ("median_s", "low_s", "high_s"):
                        timing[key] *= factor
                file.write(json.dumps(record, separators=(",", ":")) + "\n")
        if number % 10 == 0 and (like / "calibration.json").is_file():
            (directory / "calibration.json").write_text((like / "calibration.json").read_text())
