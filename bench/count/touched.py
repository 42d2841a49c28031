"""Which stages a recipe changes: beside a baseline that has the others, they need not be timed
again."""

from collections.abc import Container, Mapping

from bench.core.specs.model import Stage
from bench.core.specs.point import Point
from bench.core.specs.recipe import Recipe
from bench.results.counts import StageCount

OF_THE_DENOISER = ("forward", "denoise_step", "trajectory", "train_step", "prefill", "decode_token")
OF_THE_VAE = ("vae_decode", "vae_encode", "condition_encode")
TOUCHES: dict[str, Container[str]] = {
    **dict.fromkeys(
        (
            "quantise",
            "sparsity",
            "compile",
            "guidance",
            "steps",
            "sampler",
            "denoiser",
            "cache",
            "draft",
            "offload",
            "cuda_graph",
        ),
        OF_THE_DENOISER,
    ),
    **dict.fromkeys(("vae_chunk", "vae_tile", "compile_vae"), OF_THE_VAE),
}
"""Field of a recipe -> the stages that it can change.  A field that is not here can change any;
`attention` those alone that attend, and `cudnn_benchmark` those that convolve, by their counts."""


def untouched(point: Point, baseline: Point, counts: Mapping[str, StageCount]) -> tuple[Stage, ...]:
    """Stages of a point that run as the baseline's do; none where that would be all of them, since
    something is to be timed.  counts: the baseline's."""
    changed = changed_fields(point.recipe, baseline.recipe)
    same = tuple(
        stage
        for stage in point.stages
        if stage in baseline.stages
        and not any(_touches(name, stage, counts.get(stage)) for name in changed)
    )
    return same if len(same) < len(point.stages) else ()


def built(point: Point, reused: Container[str]) -> Point:
    """The point with the stages that still have to be called: the timed ones, and where a
    trajectory is compared what makes its clip.  The parts of the others need not be built."""
    compared = ("trajectory", "vae_decode") if "trajectory" in point.stages else ()
    stages = tuple(s for s in point.stages if s not in reused or s in compared)
    return point.model_copy(update={"stages": stages})


def changed_fields(recipe: Recipe, baseline: Recipe) -> list[str]:
    """Names of the fields in which two recipes differ, but for what they are called."""
    ours, theirs = recipe.identity(), baseline.identity()
    return sorted(
        name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)
    )


def _touches(name: str, stage: str, count: StageCount | None) -> bool:
    if name == "attention":
        return count is None or count.attention_flops > 0
    if name == "cudnn_benchmark":
        return count is None or count.conv_flops > 0
    return name not in TOUCHES or stage in TOUCHES[name]
