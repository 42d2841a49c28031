"""Does a point fit a card's memory?  By counted weights and modelled peaks.  Needs no torch.

Kernels' workspaces, and what an allocator rounds up, come on top."""

from collections.abc import Mapping

from bench.core.specs.point import Point
from bench.core.specs.recipe import DTYPE_BYTES
from bench.results.counts import StageCount


def fits_memory(
    point: Point,
    counts: Mapping[str, StageCount],
    params: Mapping[str, int],
    memory: int | None,
    part: str = "denoiser",
    stage: str = "denoise_step",
) -> bool | None:
    """Do a part's weights and the modelled peak of its stage fit?  None where the memory is
    unknown."""
    if memory is None:
        return None
    return (
        params[part] * DTYPE_BYTES[point.recipe.dtype] + counts[stage].bytes_peak_activations
        <= memory
    )
