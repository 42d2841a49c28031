"""A published table of measured latencies, made up."""

import csv

from bench.calibrate.published.table import NEEDED

MINIMAL = {
    "model": "Wan2.1-T2V-1.3B",
    "gpu": "H100",
    "width": "832",
    "height": "480",
    "frames": "81",
    "steps": "50",
    "forwards_per_video": "100",
    "scope": "full pipeline",
    "latency_s": "80",
}


def write(path, *rows, columns=NEEDED):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path
