"""Somebody else's table of measured latencies, read: every row is taken or refused with a reason,
every reading is told.

A row is one video (or one step of it) on one GPU.  Nine columns are needed; others that are known
are used where present.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path

from bench.calibrate.published.names import (
    ENCODES_WHOLE_CLIP,
    GIVEN_FRAMES,
    GUESSED,
    Scope,
    Unusable,
    fast_attention,
    read_gpu,
    read_model,
    read_precision,
    read_scope,
)
from bench.calibrate.published.numbers import number_in, says_yes
from bench.core.errors import UserError
from bench.core.load import load, names
from bench.core.read_csv import read_csv
from bench.core.specs.base import MAX_PIXELS
from bench.core.specs.gpu import Gpu
from bench.core.specs.model import Model

NEEDED = (
    "model",
    "gpu",
    "width",
    "height",
    "frames",
    "steps",
    "forwards_per_video",
    "scope",
    "latency_s",
)
USED_WHERE_PRESENT = (
    "id",
    "task",
    "n_gpus",
    "batch",
    "dtype",
    "attention",
    "compile",
    "offload",
    "s_per_step",
    "grade",
    "note",
    "parallelism",
    "source",
)

MAX_SIDE = 1_000_000  # frames, rows or columns, as of a workload


@dataclass(frozen=True, kw_only=True)
class Row:
    """One usable measurement."""

    id: str
    """The table's own, or the line in the file."""
    model: str
    """A name in configs/models."""
    named: str
    """The table's name for it."""
    gpu: str
    """A name in configs/gpus."""
    frames: int
    height: int
    width: int
    forwards: float
    """Denoiser forwards in the latency, guidance included."""
    prompts: int
    """Two where more than one forward a step is run."""
    scope: Scope
    encodes_clip: bool
    """Given frames are encoded beside: a clip as long as the result."""
    fast_attention: bool
    """FlashAttention-3 or cuDNN, where the table says so."""
    unfused: bool
    """The table says that nothing was compiled."""
    offloaded: bool
    fp8: bool = False
    """Linear layers in 8 bits; all else in 16."""
    latency_s: float
    grade: str = ""
    """As the table gives it: A trustworthy, B one or two conditions inferred, C more."""
    guessed: bool = False
    """Its note says that conditions are from memory or assumed."""
    source: str = ""
    gpus: int = 1
    parallelism: str = ""
    """The mesh, in the table's words."""


@dataclass(frozen=True)
class Skipped:
    """A row that cannot be used, and why."""

    id: str
    named: str
    gpu: str
    reason: str


@dataclass
class PublishedTable:
    """What was read."""

    rows: list[Row] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    models: dict[str, str] = field(default_factory=dict)
    """The table's name -> ours, with a remark where there is one to make."""
    gpus: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """What was taken for what: nearest legal sizes and the like."""

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def read_table(path: Path, *, several_gpus: bool = False) -> PublishedTable:
    """several_gpus: the rows on more than one GPU, in the place of those on one.

    Raises UserError for what is no such table, or where no row can be used."""
    out = PublishedTable()
    device_names = {
        device: name for name in names("gpus") for device in load(Gpu, name).device_names
    }
    rows = read_csv(path, NEEDED, USED_WHERE_PRESENT)
    for line, cells in enumerate(rows, start=2):
        row_id = cells.get("id") or f"line {line}"
        try:
            _check_gpus(cells, several_gpus)
            out.rows.append(_read_row(row_id, cells, out, device_names))
        except Unusable as reason:
            out.skipped.append(
                Skipped(row_id, cells.get("model", ""), cells.get("gpu", ""), str(reason))
            )
    if not out.rows:
        if not out.skipped:
            raise UserError(f"{path}: no rows under the header")
        reasons = sorted({s.reason for s in out.skipped})
        more = f" (and {len(reasons) - 3} more reasons)" if len(reasons) > 3 else ""
        raise UserError(
            f"{path}: none of its {len(out.skipped)} rows can be used:"
            f" {'; '.join(reasons[:3])}{more}"
        )
    return out


def _read_row(
    row_id: str, cells: dict[str, str], table: PublishedTable, device_names: dict[str, str]
) -> Row:
    given = cells.get
    gpu, remark = read_gpu(given("gpu", ""), names("gpus"), device_names)
    _check_one_video(cells)
    model_name = read_model(given("model", ""), names("models"))
    fp8 = read_precision(given("dtype") or "")
    fast = fast_attention(given("attention") or "")
    scope = read_scope(given("scope", ""))
    if scope.guessed:
        table.note(f"scope {given('scope')!r} is not known: read as {scope}")
    steps, forwards = _evaluations(cells)
    latency_s = _latency(cells, scope, table)
    frames, height, width = _size(cells, model_name, table)
    table.gpus[given("gpu")] = gpu + (f" ({remark})" if remark else "")
    encodes = _encodes_clip(cells, model_name, scope, table)
    per_call = {"step": forwards / steps, "forward": 1.0}
    return Row(
        id=row_id,
        model=model_name,
        named=given("model"),
        gpu=gpu,
        frames=frames,
        height=height,
        width=width,
        forwards=per_call.get(scope.per, forwards),
        prompts=2 if forwards >= 2 * steps else 1,
        scope=scope,
        encodes_clip=encodes,
        fast_attention=fast,
        unfused=(given("compile") or "").lower().startswith(("no", "false", "eager", "0")),
        offloaded=says_yes(given("offload") or ""),
        fp8=fp8,
        latency_s=latency_s,
        grade=given("grade") or "",
        guessed=GUESSED.search(given("note") or "") is not None,
        source=given("source") or "",
        gpus=int(number_in("n_gpus", given("n_gpus") or "1")),
        parallelism=given("parallelism") or "",
    )


def _check_gpus(cells: dict[str, str], several: bool) -> None:
    gpus = cells.get("n_gpus") or "1"
    if (number_in("n_gpus", gpus) != 1) != several:
        raise Unusable(f"{gpus} GPUs; one is fitted")


def _check_one_video(cells: dict[str, str]) -> None:
    batch = cells.get("batch")
    if batch and number_in("batch", batch) != 1:
        raise Unusable(f"batch {batch}: one video at a time is fitted")


def _evaluations(cells: dict[str, str]) -> tuple[float, float]:
    """Steps, and forwards of the denoiser in all of them."""
    steps = number_in("steps", cells.get("steps", ""), whole=True)
    forwards = number_in("forwards_per_video", cells.get("forwards_per_video", ""))
    if forwards < steps * 0.49:
        raise Unusable(f"{forwards:g} forwards in {steps:g} steps: steps were skipped or cached")
    return steps, forwards


def _latency(cells: dict[str, str], scope: Scope, table: PublishedTable) -> float:
    """Seconds of what the row's scope says."""
    seconds = cells.get("latency_s", "")
    if not seconds and scope.per == "step" and cells.get("s_per_step"):
        seconds = cells["s_per_step"]
    latency_s = number_in("latency_s", seconds)
    if "," in seconds:
        table.note(f"numbers with a comma: latency_s {seconds!r} read as {latency_s:g}")
    return latency_s


def _size(cells: dict[str, str], model_name: str, table: PublishedTable) -> tuple[int, int, int]:
    """(frames, height, width), the nearest that the model takes."""
    sides = ("frames", "height", "width")
    frames, height, width = (number_in(n, cells.get(n, ""), whole=True) for n in sides)
    if max(frames, height, width) > MAX_SIDE or frames * height * width > MAX_PIXELS:
        raise Unusable(f"{frames:g} frames of {width:g}x{height:g}: more than a workload may have")
    legal = _legal_size(load(Model, model_name), int(frames), int(height), int(width))
    if legal != (frames, height, width):
        table.note(
            f"{cells.get('model')}: {width:g}x{height:g}, {frames:g} frames counted as "
            f"{legal[2]}x{legal[1]}, {legal[0]} frames, the nearest it takes"
        )
    return legal


def _encodes_clip(
    cells: dict[str, str], model_name: str, scope: Scope, table: PublishedTable
) -> bool:
    """Does the run encode given frames as a whole clip?  Notes how its model is counted."""
    named = cells.get("model") or ""
    given_frames = GIVEN_FRAMES.search(f"{cells.get('task') or ''} {named}")
    image = bool(given_frames) and "ti2v" not in named.lower()
    whole_video = scope.per == "video" and scope.vae
    encodes = image and model_name.startswith(ENCODES_WHOLE_CLIP) and whole_video
    counted = ""
    if image:
        beside = ", with a clip encoded beside" if encodes else ""
        counted = f" (given frames: counted as the text-to-video model{beside})"
    table.models[named] = model_name + counted
    return encodes


def _legal_size(model: Model, frames: int, height: int, width: int) -> tuple[int, int, int]:
    """The nearest (frames, height, width) that VAE and patches take: harnesses round such sizes
    without a word.

    Raises Unusable where none lies within a tenth."""
    vae, patch = model.vae, model.denoiser.patch_size
    sizes = []
    for size, step in (
        (height, vae.spatial_factor * patch[1]),
        (width, vae.spatial_factor * patch[2]),
    ):
        sizes.append(max(step, math.floor(size / step + 0.5) * step))
    height_, width_ = sizes
    for delta in range(2 * vae.temporal_factor * patch[0] + 1):
        for candidate in (frames + delta, frames - delta):
            try:
                model.denoiser.tokens(vae.latent_shape(candidate, height_, width_))
            except ValueError:
                continue
            if (
                max(abs(candidate / frames - 1), abs(height_ / height - 1), abs(width_ / width - 1))
                <= 0.1
            ):
                return candidate, height_, width_
    raise Unusable(f"{width}x{height}, {frames} frames: {model.name} takes nothing near that")
