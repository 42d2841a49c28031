"""Published latencies from a CSV, a claim a row: which rows know all their conditions, and what
stands beside each."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.calibrate.published.names import Unusable, read_gpu
from bench.core.errors import UserError
from bench.core.load import check_point, load, names
from bench.core.quantity import Quantity
from bench.core.read_csv import read_csv
from bench.core.specs.claim import LatencyTableCheck
from bench.core.specs.gpu import Gpu
from bench.core.specs.model import Model
from bench.core.specs.point import Point
from bench.core.specs.recipe import Recipe
from bench.core.specs.workload import Workload
from bench.studies.claims.verdict import Finding, Shelf, how_to_tell, unheld

if TYPE_CHECKING:
    from bench.calibrate.predict import Estimate

COLUMNS = (
    "id",
    "model",
    "task",
    "gpu",
    "n_gpus",
    "batch",
    "width",
    "height",
    "frames",
    "fps",
    "steps",
    "forwards_per_video",
    "dtype",
    "compile",
    "scope",
    "latency_s",
    "s_per_step",
    "grade",
    "note",
    "source",
)
ANY_FPS = 24.0  # where a row has none: it decides how much video it is, not how long it takes
SMALL_MEMORY_BYTES = 48e9  # L40S: the largest card that the suites for 80 GB do not fit
GUIDANCE = {1: "none", 2: "cfg"}  # by forwards a step
PRINTED = ("gpu", "dtype", "compile", "scope", "grade", "note", "source")
EAGER = {"compile": "none", "quantise": "none", "cache": None}
"""The settings of a recipe that does not name them."""


@dataclass(frozen=True)
class TableRow:
    """One published latency with all its conditions."""

    id: str
    seconds: float
    scope: str
    gpu: str
    """The name in configs/gpus, else as printed."""
    model: Model
    workload: Workload
    dtype: str
    compiled: bool
    printed: dict[str, str]

    @property
    def quantity(self) -> str:
        w = self.workload
        step = ", one of them" if self.scope == "step" else ""
        return (
            f"{self.model.name}, {w.frames} x {w.width}x{w.height}, {w.steps} steps{step},"
            f" {self.printed['gpu']}, {self.dtype}{' compiled' if self.compiled else ''}"
        )

    def find(self, shelf: Shelf) -> Finding:
        """By a calibration of that very GPU, with a recipe of the same dtype that is compiled if
        theirs was; else by the other published rows, this one left out."""
        printed = {column: self.printed[column] for column in PRINTED}
        conditions: dict[str, Any] = {
            "model": self.model.name,
            "workload": self.workload.name,
            "recipe": None,
            "gpu": self.gpu,
            "scope": self.scope,
            "as_printed": printed,
        }
        if self.gpu not in names("gpus"):
            return Finding(
                None,
                f"GPU {self.gpu} is not in configs/gpus, so nothing is known of it",
                conditions=conditions,
            )
        # Not counted without need: a public model takes seconds.
        command = how_to_tell(self.gpu, "small-gpu" if is_small(self.gpu) else "zoo")
        evidence = shelf.own if shelf.own is not None and shelf.own.gpu == self.gpu else None
        left_out = shelf.left_out(self.id) if shelf.left_out is not None else None
        if evidence is None and left_out is not None:
            return replace(left_out, command=command, conditions=conditions)
        if evidence is None:
            return Finding(None, unheld(shelf, self.gpu), command=command, conditions=conditions)
        recipe = next(
            (r for name in evidence.recipes if self._is_like(r := load(Recipe, name))), None
        )
        if recipe is None:
            return Finding(
                None,
                f"published in {self.dtype}{', compiled' if self.compiled else ''}; calibrated"
                f" recipes: {', '.join(evidence.recipes)}, none of them such",
                command=command,
                conditions=conditions,
            )
        point = Point(
            model=self.model, workload=self.workload, recipe=recipe, stages=("denoise_step",)
        )
        found = evidence.predict(point, pick_scope(self.scope))
        theirs = self.printed.get("attention") or "unstated"
        why = (
            f"{found.why}; theirs: {self.printed['gpu']}, attention {theirs}; ours:"
            f" {recipe.attention}"
        )
        return Finding(
            found.ours,
            why,
            found.judges,
            command if found.ours is None else None,
            conditions | {"recipe": recipe.name},
            found.warnings,
        )

    def _is_like(self, recipe: Recipe) -> bool:
        says = {**EAGER, **recipe.model_dump()}
        fp8 = self.dtype == "fp8"
        return (
            recipe.dtype == ("bf16" if fp8 else self.dtype)
            and says["quantise"] == ("fp8" if fp8 else "none")
            and (says["compile"] != "none") == self.compiled
            and says["cache"] is None
        )


def is_small(gpu: str) -> bool:
    """Is it a card for the suite small-gpu?"""
    memory = load(Gpu, gpu).memory_bytes
    return memory is not None and memory <= SMALL_MEMORY_BYTES


def pick_scope(scope: str) -> "Callable[[Estimate], Quantity | None]":
    """The part of an estimate that a latency of this scope is compared with."""

    def pick(e: "Estimate") -> "Quantity | None":
        if scope == "step":
            return e.step_s
        if scope == "video":
            return e.video_s
        if scope == "denoise_and_decode":
            return e.stages["denoise"] + e.stages["vae_decode"]
        return e.stages["denoise"]

    return pick


def read_table(
    check: LatencyTableCheck, folder: Path
) -> tuple[list[TableRow], list[tuple[str, str]]]:
    """The rows that are claims, and (id, why) of those that are not.  Raises UserError for a file
    that is no such table."""
    path = folder / check.table
    table = read_csv(path, COLUMNS)
    models = {printed: load(Model, name) for printed, name in check.models.items()}
    rows: list[TableRow] = []
    left_out: list[tuple[str, str]] = []
    for row in table:
        try:
            rows.append(_row(check, models, row))
        except _NoClaim as reason:
            left_out.append((row["id"], str(reason)))
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{path}: row {row['id']}: {' '.join(str(error).split())[:200]}"
            ) from None
    return rows, left_out


class _NoClaim(Exception):
    """Why a row is no claim."""


def _row(check: LatencyTableCheck, models: dict[str, Model], row: dict[str, str]) -> TableRow:
    def mapped(column: str, mapping: dict[str, Any], lacks: str) -> Any:
        if row[column] not in mapping:
            raise _NoClaim(f"{lacks}: {column} {row[column]!r}")
        return mapping[row[column]]

    if (row["n_gpus"], row["batch"]) != ("1", "1"):
        raise _NoClaim(
            f"{row['n_gpus']} GPUs, batch {row['batch']}: one device and one video are modelled"
        )
    model = mapped("model", models, "no such model here")
    doubt = next((words for words in check.unknown if words in row["note"]), None)
    if doubt is not None:
        raise _NoClaim(f"not all conditions known: {doubt}")
    task = mapped("task", check.tasks, "no such task of this model here")
    scope = mapped("scope", check.scopes, "its scope is not known")
    if row["grade"] not in check.grades:
        raise _NoClaim(f"grade {row['grade']}")
    steps, forwards = int(row["steps"]), row["forwards_per_video"]
    if not forwards.isdigit() or int(forwards) / steps not in GUIDANCE:
        raise _NoClaim(f"{forwards} forwards in {steps} steps: guidance is not known")
    seconds = row["s_per_step" if scope == "step" else "latency_s"]
    workload = Workload(
        name=row["id"],
        description=row["source"],
        frames=int(row["frames"]),
        height=int(row["height"]),
        width=int(row["width"]),
        fps=float(row["fps"] or ANY_FPS),
        steps=steps,
        guidance=GUIDANCE[int(forwards) // steps],
        batch=1,
        task=task,
    )
    dtype = mapped("dtype", check.dtypes, "its dtype is not known")
    compiled = mapped("compile", check.compiled, "compiled or not is not known")
    try:
        check_point(
            Point(
                model=model,
                workload=workload,
                recipe=load(Recipe, "eager-bf16"),
                stages=("denoise_step",),
            )
        )
    except UserError as error:
        raise _NoClaim(str(error)) from None
    return TableRow(
        row["id"],
        float(seconds),
        scope,
        check.gpus.get(row["gpu"]) or _card(row["gpu"]),
        model,
        workload,
        dtype,
        compiled,
        row,
    )


def _card(printed: str) -> str:
    """The card that a table means, as bench.calibrate.published.names reads it; else as printed."""
    try:
        return read_gpu(printed, names("gpus"), {})[0]
    except Unusable:
        return printed
