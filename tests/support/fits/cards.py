"""A measured result as another machine or card would have made it."""

import json
import shutil


def altered(directory, to, change):
    """A copy of a result whose records went through `change` (a dict -> a dict, or None to drop
    it)."""
    shutil.copytree(directory, to)
    lines = [json.loads(line) for line in (to / "records.jsonl").read_text().splitlines()]
    (to / "records.jsonl").write_text(
        "".join(json.dumps(r) + "\n" for r in map(change, lines) if r is not None)
    )
    (to / "calibration.json").unlink(missing_ok=True)
    return to


def slower(factor):
    def change(record):
        for timing in record.get("timings", {}).values():
            for key in ("samples_s", "warmup_s"):
                timing[key] = [factor * s for s in timing[key]]
            for key in ("median_s", "low_s", "high_s", "p5_s", "p25_s", "p75_s", "p95_s"):
                timing[key] *= factor
        if record["kind"] == "point":  # another size, so that it was no part of the fit
            record["point"]["workload"]["steps"] += 1
        return record

    return change


def as_card(gpu, device_name, factor):
    """A change of records: of this card, which takes `factor` times as long."""

    def change(record):
        record = slower(factor)(record)
        record["environment"] |= {
            "gpu": gpu,
            "device": "cpu" if gpu == "cpu" else "cuda",
            "device_name": device_name,
        }
        for probe in record.get("probes", []):
            for key in ("median_s", "low_s", "high_s"):
                probe["timing"][key] *= factor
        return record

    return change
