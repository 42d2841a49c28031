"""How far two outputs are apart, and how far the baseline's own are: of a rerun, and of other
seeds."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from bench.core.specs.point import Point
from bench.measure.points.build import INPUTS_SEED, inputs_of
from bench.results.records import BaselineNoise, Divergence

SEEDS = (INPUTS_SEED, INPUTS_SEED + 1, INPUTS_SEED + 2)
MAX_S = 60.0
"""Three more outputs of the baseline that take longer are not made."""

_KNOWN: dict[tuple[str, str], BaselineNoise] = {}
"""Of this process, by the baseline and the device: every recipe of a suite has the same one."""


def divergence_of(outputs: Mapping[str, Tensor], baseline: Mapping[str, Tensor]) -> Divergence:
    """latents (B, C, T, H, W) and, where decoded, video (B, 3, F, H, W), of the samples that both
    have."""
    samples = min(outputs["latents"].shape[0], baseline["latents"].shape[0])
    ours, theirs = (side["latents"][:samples].double() for side in (outputs, baseline))
    relative = ((ours - theirs).norm() / theirs.norm()).item()
    cosine = torch.nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0).item()
    psnr = None
    if "video" in outputs and "video" in baseline:
        ours_px, theirs_px = (side["video"][:samples].double() for side in (outputs, baseline))
        mse = (ours_px - theirs_px).square().mean().item()
        peak = (theirs_px.max() - theirs_px.min()).item()
        psnr = 10 * torch.tensor(peak**2 / mse).log10().item() if mse > 0 else None
    return Divergence(
        relative_l2=relative,
        cosine=cosine,
        psnr_db=psnr,
        identical=relative == 0.0,
        samples=samples,
    )


def noise_of(
    point: Point,
    call: Callable[[], Tensor],
    latents: Tensor,
    device: torch.device,
    call_s: float,
) -> tuple[BaselineNoise | None, str | None]:
    """The baseline against itself; or None and why it was not made.

    call: of the stage that is compared; latents: what it gave, in host memory; call_s: its seconds.
    """
    key = (point.subject, str(device))
    if key in _KNOWN:
        return _KNOWN[key], None
    if len(SEEDS) * call_s > MAX_S:
        return None, f"three more outputs would take {len(SEEDS) * call_s:.0f} s"
    again, of_seeds = _host(call()), [latents]
    for seed in SEEDS[1:]:
        with _seeded(point, call, seed, device):
            of_seeds.append(_host(call()))
    if not all(torch.isfinite(x).all() for x in of_seeds):
        return None, "its outputs are not finite"
    apart = [divergence_of({"latents": b}, {"latents": a}) for a, b in combinations(of_seeds, 2)]
    rerun = divergence_of({"latents": again}, {"latents": latents})
    _KNOWN[key] = BaselineNoise(rerun=rerun, seeds=apart)
    return _KNOWN[key], None


@contextlib.contextmanager
def _seeded(
    point: Point, call: Callable[..., Any], seed: int, device: torch.device
) -> Iterator[None]:
    """The call's stages on inputs of another seed; the weights stay."""
    stages = _stages_of(call)
    before = stages.inputs
    with torch.inference_mode(False):
        stages.inputs = inputs_of(point, stages.pipeline, device, seed)
    try:
        yield
    finally:
        stages.inputs = before


def _stages_of(call: Any) -> Any:
    """The models.stages object whose method a held call is."""
    while not hasattr(call, "__self__"):
        call = getattr(call, "__wrapped__", None) or call.call
    return call.__self__


def _host(latents: Tensor) -> Tensor:
    return latents.float().cpu()
