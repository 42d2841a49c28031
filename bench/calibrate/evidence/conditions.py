"""How a point is run, as far as evidence tells runs apart, and what it says nothing of."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.calibrate.evidence.effects import FAST_GAIN
from bench.calibrate.evidence.observation import Observation
from bench.core.errors import UserError
from bench.core.specs.gpu import Gpu
from bench.core.specs.point import Point
from bench.core.specs.recipe import Recipe

FAST = ("cudnn", "flash3", "fastest")
HALF = ("bf16", "fp16")


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What published rows say of how a model was run."""

    fast_attention: bool = False
    compiled: bool = False
    fp8: bool = False
    offloaded: bool = False

    def words(self) -> str:
        """E.g. "FlashAttention-2, not compiled"."""
        parts = ["FlashAttention-3 or cuDNN" if self.fast_attention else "FlashAttention-2"]
        parts.append("compiled" if self.compiled else "not compiled")
        parts += ["fp8 linear layers"] if self.fp8 else []
        parts += ["offloaded"] if self.offloaded else []
        return ", ".join(parts)


def of_recipe(recipe: Recipe, gpu: Gpu) -> Conditions:
    """A recipe, in the words of published rows.  Raises UserError for one that no 16-bit rate says
    anything of."""
    if recipe.dtype not in HALF:
        raise UserError(
            f"recipe {recipe.name}: published evidence is of bf16 and fp16, and says nothing of"
            f" {recipe.dtype}; choose a recipe in bf16, or give --calibration, a result of"
            f" {gpu.name}"
        )
    has_fast = gpu.architecture in FAST_GAIN
    return Conditions(
        fast_attention=recipe.attention in FAST or (recipe.attention == "auto" and has_fast),
        compiled=recipe.compile != "none",
        fp8=recipe.quantise == "fp8",
        offloaded=recipe.offload == "weights",
    )


def of_rows(rows: Iterable[Observation]) -> Conditions | None:
    """How most published rows of a model were run; None where there is none."""
    seen = Counter(
        Conditions(fast_attention=o.fast_attention, compiled=not o.unfused)
        for o in rows
        if not o.fp8
    )
    return max(seen, key=lambda c: (seen[c], not c.fast_attention, not c.compiled), default=None)


def unknown_of(point: Point, gpu: Gpu, rows: Sequence[Observation]) -> list[str]:
    """What the evidence says little or nothing of, one line each.  rows: the published ones."""
    recipe, found = point.recipe, []
    if recipe.attention == "auto" and gpu.architecture in FAST_GAIN:
        found.append(
            "attention auto is taken as cuDNN, PyTorch's choice on this card from 2.10 on; with an"
            " older PyTorch it is FlashAttention-2"
        )
    if recipe.attention in ("math", "efficient", "sage", "fp8-flash3"):
        found.append(_not(f"attention {recipe.attention}", "priced as FlashAttention-2"))
    if recipe.quantise not in ("none", "fp8"):
        found.append(_not(f"quantise {recipe.quantise}", "priced in 16 bits"))
    if recipe.quantise == "fp8":
        found.append(_rests("fp8", [o for o in rows if o.fp8]))
    if recipe.sparsity != "none":
        found.append(_not(f"sparsity {recipe.sparsity}", "priced dense"))
    if recipe.cache is not None:
        found.append(
            f"cache {recipe.cache.kind}: the reused evaluations are priced by the blocks that they"
            " run; what the cache itself takes, and what it does to the picture, no published row"
            " says"
        )
    if recipe.draft is not None:
        found.append(_not("a draft model", "priced as if the large model took every step"))
    if recipe.cuda_graph:
        found.append(_not("a CUDA graph", "priced without"))
    if recipe.offload == "weights":
        found.append(_rests("offload weights", [o for o in rows if o.offloaded]))
    if point.workload.batch > 1:
        found.append(f"batch {point.workload.batch}: every published row is of one video at a time")
    return found


def _rests(what: str, rows: Sequence[Observation]) -> str:
    """How much is published of it."""
    models, cards = (sorted({getattr(o, name) for o in rows}) for name in ("model", "gpu"))
    return f"{what} rests on {len(rows)} published rows ({', '.join(models)}; {', '.join(cards)})"


def _not(what: str, instead: str) -> str:
    return f"published evidence says nothing of {what}: {instead}"
