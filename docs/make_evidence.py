"""Writes what is known of cards from published tables: configs/evidence/*.json, and the counted
work of whole videos that forecasts need, configs/counts/work.json.gz.

    python docs/make_evidence.py              Count what is missing (some minutes after a change of
                                              the models or of the counting), fit, write.
    python docs/make_evidence.py --scatter    The same, the scatters fitted anew (a minute more):
                                              after a change of the tables or of the cost model.
    python docs/make_evidence.py --work       Count what is missing, and fit nothing: after a new
                                              model, or a change of what `explore --export` holds.
    python docs/make_evidence.py --stamp      After a change of the counting code that alters no
                                              count: count a part again, keep the rest where equal.
    python docs/make_evidence.py --check      Exit 1 where a file is out of date; a few seconds.
"""

import functools
import gzip
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.calibrate.evidence.card import FOLDER, OBSERVATIONS
from bench.calibrate.evidence.effects import Scatter
from bench.calibrate.evidence.fit import fit_scatter
from bench.calibrate.evidence.gather import TABLES, observations_of, published_tables
from bench.calibrate.evidence.held_out import groupings, predict_held_out, summarise
from bench.calibrate.evidence.make import card_files, held_out_errors, posterior_of, predict_rows
from bench.calibrate.evidence.observation import Observation, columns
from bench.calibrate.scaling.evidence import SCALING
from bench.calibrate.scaling.gather import rows_on_several
from bench.calibrate.scaling.make import scaling_file
from bench.core.load import load, names
from bench.core.specs.model import Model
from bench.core.specs.workload import Workload
from bench.count.cache import CountCache
from bench.count.shipped import WORK_FILE, counting_code, diffusers_version, shipped_work
from bench.count.work import (
    decode_flops,
    denoiser_attention_width,
    denoiser_depth,
    denoiser_heads,
    denoiser_params,
    encode_flops,
    forward_work,
)
from bench.explore.grid import points_by_default
from models.spec import DiffusersDenoiser, DiTConfig

EVIDENCE = ROOT / "configs" / FOLDER
CHECKED = 12  # forwards that --stamp counts again, and their decodings
PARTS = ("tiny", "ablation", "versus", "image")  # workloads that nobody asks forecasts of
SCALING_AGREES = 1e-2
AGREE = 1e-4  # of log seconds: files are made on machines whose linear algebra rounds otherwise


class WorkCounts(CountCache):
    """A cache that is the shipped file: what it is asked for, and nothing else, is written."""

    def __init__(self, known: dict[str, dict[str, int]]):
        super().__init__()
        self.known, self.asked = known, {}

    def numbers(self, what: object, count: Callable[[], dict[str, int]]) -> dict[str, int]:
        key = self.key(what)
        if key not in self.asked:
            self.asked[key] = self.known.get(key) or super().numbers(what, count)
        return self.asked[key]


def say(text: str) -> None:
    print(text, file=sys.stderr)


def gather(counts: CountCache) -> list[Observation]:
    """Every usable row of the tables."""
    found = []
    for table in published_tables():
        observations, impossible = observations_of(table, counts, lambda _: None)
        for row in impossible:
            say(f"{row.id}: {row.reason}")
        found += observations
    return found


def count_presets(counts: CountCache) -> None:
    """Work of every public model, and of the published estimate's own ones, at every workload that
    it takes."""
    workloads = [load(Workload, name) for name in names("workloads") if not name.startswith(PARTS)]
    for name in names("models"):
        model = load(Model, name)
        if not isinstance(model.denoiser, DiffusersDenoiser | DiTConfig):
            continue
        public = isinstance(model.denoiser, DiffusersDenoiser)
        if not public and not name.startswith("sora-"):
            continue
        denoiser_params(model, counts)
        denoiser_depth(model, counts)
        denoiser_heads(model, counts)
        denoiser_attention_width(model, counts)
        for workload in workloads:
            if takes(model, workload) and (public or workload.name.startswith("sora-")):
                count_video(model, workload, counts)


def count_page(counts: CountCache) -> None:
    """Work of what an exported explore page holds, which then needs no counting."""
    for point in points_by_default():
        count_video(point.model, point.workload, counts)


def takes(model: Model, workload: Workload) -> bool:
    try:
        model.tokens(workload)
    except ValueError:
        return False
    return True


def count_video(model: Model, workload: Workload, counts: CountCache) -> None:
    size = workload.frames, workload.height, workload.width
    forward_work(model, size, counts)
    decode_flops(model, size, counts)
    if workload.encoded_frames:
        encode_flops(model, size, counts)


def write_work(counts: WorkCounts) -> None:
    document = {
        "code": counting_code(),
        "diffusers": diffusers_version(),
        "numbers": dict(sorted(counts.asked.items())),
    }
    path = ROOT / "configs" / WORK_FILE
    path.write_bytes(gzip.compress(json.dumps(document, separators=(",", ":")).encode(), mtime=0))


def tables_digest() -> str:
    """Sixteen hex digits of what the observations are read from."""
    digest = hashlib.sha256()
    for name in TABLES:
        digest.update((ROOT / "configs" / "reference" / name).read_bytes())
    return digest.hexdigest()[:16]


@functools.cache
def shipped() -> dict[str, Any]:
    return json.loads((EVIDENCE / OBSERVATIONS).read_bytes())


def write_evidence(observations: list[Observation], anew: bool) -> None:
    known = (EVIDENCE / OBSERVATIONS).is_file()
    if anew or not known:
        seconds = [o.seconds for o in observations]
        scatter = fit_scatter(columns(observations), _array(seconds))
    else:
        scatter = Scatter.model_validate(shipped()["scatter"])
    errors = held_out_errors(observations, scatter)
    EVIDENCE.mkdir(exist_ok=True)
    for old in EVIDENCE.glob("*.json"):
        old.unlink()
    document = {
        "tables": tables_digest(),
        "scatter": scatter.model_dump(),
        "held_out": [e.model_dump() for e in errors],
        "left_out": {
            row: found.model_dump()
            for row, found in predict_rows(observations, scatter, errors).items()
        },
        "observations": [o.model_dump(exclude_defaults=True) for o in observations],
    }
    (EVIDENCE / OBSERVATIONS).write_text(json.dumps(document, indent=1) + "\n")
    for card in card_files(observations, scatter, errors):
        text = json.dumps(card.model_dump(), separators=(",", ":"))
        (EVIDENCE / f"{card.gpu}.json").write_text(text + "\n")
    print(f"written: configs/{FOLDER}, {len(observations)} rows")


def write_scaling(observations: list[Observation], counts: CountCache) -> None:
    """Rows on several cards, by the evidence of one."""
    made = scaling_of(observations, counts)
    text = json.dumps(made.model_dump(), indent=1)
    (EVIDENCE / SCALING).write_text(text + "\n")
    print(f"written: configs/{FOLDER}/{SCALING}, {made.n} rows")


def scaling_of(observations: list[Observation], counts: CountCache) -> Any:
    scatter = Scatter.model_validate(shipped()["scatter"])
    whole = posterior_of(observations, scatter)
    return scaling_file(*rows_on_several(observations, whole, counts))


def faults() -> list[str]:
    """What is out of date."""
    found = []
    if not shipped_work():
        found.append(f"configs/{WORK_FILE}: of other counting code; python docs/make_evidence.py")
    if shipped()["tables"] != tables_digest():
        found.append(f"configs/{FOLDER}: of other tables; python docs/make_evidence.py --scatter")
        return found
    observations = [Observation.model_validate(row) for row in shipped()["observations"]]
    if shipped_work() and gather(WorkCounts(shipped_work())) != observations:
        found.append(f"configs/{FOLDER}: its rows are read otherwise; python docs/make_evidence.py")
        return found
    scatter = Scatter.model_validate(shipped()["scatter"])
    found += stale_errors(observations, scatter)
    found += stale_scaling(observations)
    made = posterior_of(observations, scatter)
    known = {effect.name: mean for effect, mean in zip(made.effects, made.mean, strict=True)}
    for path in sorted(EVIDENCE.glob("*.json")):
        if path.name in (OBSERVATIONS, SCALING):
            continue
        rows = json.loads(path.read_bytes())["effects"]
        found += [
            f"{path.name}: {row['term']} {row['of']} {row['level'] or ''} is {row['mean']}, is"
            f" fitted as {known.get(name, float('nan')):.6g} now"
            for row in rows
            for name in [" / ".join(p for p in (row["term"], row["of"], row["level"]) if p)]
            if not abs(known.get(name, float("nan")) - row["mean"]) < AGREE
        ]
    return found


def stale_errors(observations: list[Observation], scatter: Scatter) -> list[str]:
    """Held-out errors that are others now: by model, by source and by card, a few seconds."""
    known = {(e["by"], e["gpu"]): e["error"] for e in shipped()["held_out"]}
    found = []
    for by in ("model", "source", "card"):
        predictions = predict_held_out(by, groupings(observations)[by], observations, scatter)
        error = summarise(predictions, observations).error
        if abs(error - known[by, None]) > AGREE:
            found.append(
                f"{OBSERVATIONS}: the error by {by} is {known[by, None]:.4f}, found {error:.4f}"
            )
    return found


def stale_scaling(observations: list[Observation]) -> list[str]:
    """Fitted values of several cards that are others now."""
    known = json.loads((EVIDENCE / SCALING).read_bytes())["values"]
    made = scaling_of(observations, CountCache()).values
    return [
        f"{SCALING}: {name} is {known[name]:.6g}, is fitted as {value:.6g} now"
        for name, value in made.items()
        if abs(value / known[name] - 1) > SCALING_AGREES
    ]


def stamp() -> None:
    """Count a part again; where nothing changed, the file holds for this code too."""
    path = ROOT / "configs" / WORK_FILE
    document = json.loads(gzip.decompress(path.read_bytes()))
    fresh = WorkCounts({})
    observations = [Observation.model_validate(row) for row in shipped()["observations"]]
    for o in observations[:: max(1, len(observations) // CHECKED)]:
        model, size = load(Model, o.model), (o.frames, o.height, o.width)
        forward_work(model, size, fresh)
        decode_flops(model, size, fresh)
    differ = [key for key, value in fresh.asked.items() if document["numbers"].get(key) != value]
    if differ:
        sys.exit(f"{len(differ)} of {len(fresh.asked)} counts differ: python docs/make_evidence.py")
    document["code"] = counting_code()
    path.write_bytes(gzip.compress(json.dumps(document, separators=(",", ":")).encode(), mtime=0))
    print(f"stamped: configs/{WORK_FILE}")


def _array(values: list[float]) -> Any:
    import numpy as np

    return np.array(values)


def main() -> None:
    if "--check" in sys.argv:
        found = faults()
        for line in found[:20]:
            print(line)
        sys.exit(f"{len(found)} faults" if found else 0)
    if "--stamp" in sys.argv:
        return stamp()
    counts = WorkCounts(shipped_work())
    observations = gather(counts)
    count_presets(counts)
    count_page(counts)
    if "--work" in sys.argv:
        return write_work(counts)
    write_evidence(observations, "--scatter" in sys.argv)
    shipped.cache_clear()
    write_scaling(observations, counts)
    write_work(counts)


if __name__ == "__main__":
    main()
