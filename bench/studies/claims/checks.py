"""A single claim is checked by counts, which need no calibration, or by a calibration of that very
GPU.

Where there is none, counting alone may bound what is claimed: no card does more than its
datasheet's rate, and fewer steps are no faster than their number says.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bench.core.load import load, load_point
from bench.core.quantity import Quantity
from bench.core.specs.claim import (
    Claim,
    CompareCountsCheck,
    CostCheck,
    CountCheck,
    LatencyCheck,
    SpeedupCheck,
    Subject,
    UtilisationCheck,
)
from bench.core.specs.gpu import Gpu
from bench.core.specs.model import Model
from bench.core.specs.point import Point
from bench.core.specs.workload import Workload
from bench.core.units import SECONDS_PER_HOUR, SECONDS_PER_MINUTE, plain, si
from bench.count.closed import dit as closed_form
from bench.studies.claims.latencies import is_small, pick_scope
from bench.studies.claims.verdict import Evidence, Finding, Shelf, how_to_tell, unheld
from models.spec import DiTConfig, VAEConfig

if TYPE_CHECKING:
    from bench.calibrate.predict import Estimate

DEFAULT_RECIPE = (  # whose dtype the datasheet's rate is taken of where nothing is calibrated
    "eager-bf16"
)


def finder(claim: Claim, shelf: Shelf) -> Callable[[], Finding]:
    """The check of a claim that is no table, to be run when it is wanted."""
    check = claim.check
    return lambda: CHECKERS[type(check)](check, shelf)


@dataclass(frozen=True)
class Work:
    """Counted, 1 multiply-accumulate = 2 FLOPs."""

    params: int
    forward_flops: int
    step_flops: int
    denoise_flops: int
    video_flops: int

    @property
    def forward_macs(self) -> float:
        return self.forward_flops / 2


def work_of(point: Point) -> Work:
    """Own text-to-video models by the closed form; others are counted on meta tensors, which takes
    torch and seconds."""
    model, workload = point.model, point.workload
    if (
        isinstance(model.denoiser, DiTConfig)
        and isinstance(model.vae, VAEConfig)
        and not model.denoiser.control_blocks
        and not workload.encoded_frames
    ):
        shape = model.latent_shape(workload)
        forward = sum(closed_form.dit_forward(model.denoiser, shape, workload.batch).values())
        text = sum(
            sum(closed_form.text_encode(encoder, workload.batch).values())
            for encoder in model.text_encoders
        )
        rest = (
            sum(closed_form.vae_decode(model.vae, shape, workload.batch).values())
            + text * workload.forwards_per_step
        )
        params = closed_form.dit_parameters(model.denoiser)
    else:
        from bench.count.point import count_point

        counted = count_point(point)
        forward, params = counted.stages["forward"].flops, counted.params["denoiser"]
        rest = sum(
            counted.stages[stage].flops * n
            for stage, n in (
                ("vae_decode", 1),
                ("condition_encode", 1),
                ("text_encode", workload.forwards_per_step),
            )
            if stage in counted.stages
        )
    step = forward * workload.forwards_per_step
    return Work(params, forward, step, step * workload.steps, step * workload.steps + rest)


def _point(subject: Subject, evidence: Evidence | None = None) -> Point:
    """With the claim's recipe, else that of the evidence that judges."""
    return load_point(
        subject.model,
        subject.workload,
        subject.recipe or (DEFAULT_RECIPE if evidence is None else evidence.recipes[0]),
        dict(subject.set),
    )


def _conditions(point: Point, gpu: str | None = None) -> dict[str, object]:
    return {
        "model": point.model.name,
        "workload": point.workload.name,
        "recipe": point.recipe.name,
        "gpu": gpu,
    }


def _count(check: CountCheck, shelf: Shelf) -> Finding:
    point = _point(check.subject)
    return Finding(
        Quantity.exactly(getattr(work_of(point), check.quantity), "counted"),
        f"counted: {check.quantity} of "
        f"{point.model.name} on {point.workload.name}, 1 multiply-accumulate = 2 FLOPs",
        conditions=_conditions(point),
    )


def _compare_counts(check: CompareCountsCheck, shelf: Shelf) -> Finding:
    point, tokens = _point(check.subject), check.against
    document = 2 * tokens.params * tokens.tokens
    flops = work_of(point).denoise_flops
    return Finding(
        Quantity.exactly(flops / document, "counted"),
        f"counted: {si(flops, 'FLOP')} of {point.model.name} on "
        f"{point.workload.name} over {si(document, 'FLOP')} = 2 x {tokens.params:,.0f} parameters"
        f" x {tokens.tokens:,.0f} tokens",
        conditions=_conditions(point),
    )


# What takes a card.


def _suite_for(gpu: str, model: Model) -> str:
    """The suite that would measure it there."""
    if is_small(gpu):
        return "small-gpu"
    return "h100" if isinstance(model.denoiser, DiTConfig) else "zoo"


def _on_card(
    check: CostCheck | UtilisationCheck | LatencyCheck, shelf: Shelf
) -> tuple[Point, Gpu, Evidence | None]:
    """The point, the card, and what is known of that card."""
    held = shelf.of(check.gpu)
    return _point(check.subject, held), load(Gpu, check.gpu), held


def _with(found: Finding, point: Point, gpu: Gpu, command: bool = False) -> Finding:
    return Finding(
        found.ours,
        found.why,
        found.judges,
        (
            how_to_tell(gpu.name, _suite_for(gpu.name, point.model))
            if command or found.ours is None
            else None
        ),
        _conditions(point, gpu.name),
        found.warnings,
    )


def _cost(check: CostCheck, shelf: Shelf) -> Finding:
    point, gpu, held = _on_card(check, shelf)
    if held is not None:
        return _with(
            held.predict(point, lambda e: e.usd_per_minute, "no price of it is in configs/gpus"),
            point,
            gpu,
        )
    bound, peak = None, gpu.peak_flops_per_s.get(point.recipe.dtype)
    lacking = unheld(shelf, gpu.name)
    if (
        peak is not None
        and gpu.price_usd_per_hour is not None
        and isinstance(point.model.denoiser, DiTConfig)
    ):
        hours = work_of(point).denoise_flops / peak / SECONDS_PER_HOUR
        minutes = point.workload.video_s / SECONDS_PER_MINUTE
        bound = Quantity.at_least(hours * gpu.price_usd_per_hour.low / minutes, "counted")
        lacking = (
            f"counted: the denoising steps alone at 100 % of the {point.recipe.dtype} datasheet and"
            f" {gpu.price_usd_per_hour.low:g} USD an hour ({gpu.price_usd_per_hour.date}) cost"
            f" this; {lacking}"
        )
    return _with(Finding(bound, lacking), point, gpu, command=True)


def _utilisation(check: UtilisationCheck, shelf: Shelf) -> Finding:
    point, gpu, held = _on_card(check, shelf)
    peak = gpu.peak_flops_per_s.get(point.recipe.dtype)
    if peak is None:
        return _with(
            Finding(None, f"no datasheet rate of a {gpu.name} in {point.recipe.dtype} is known"),
            point,
            gpu,
        )
    if held is not None:
        work = work_of(point).step_flops / peak

        def share(e: "Estimate") -> Quantity:
            return e.step_s.inverse(work)

        return _with(held.predict(point, share), point, gpu)
    usual = gpu.usual.get("gemm_bf16_flops_per_s") if point.recipe.dtype == "bf16" else None
    published = (
        ""
        if usual is None
        else (
            f"; published searches for the best single product reached {usual.high / peak:.0%} "
            "of the datasheet (claimed)"
        )
    )
    return _with(Finding(None, unheld(shelf, gpu.name) + published), point, gpu, command=True)


def _latency(check: LatencyCheck, shelf: Shelf) -> Finding:
    point, gpu, held = _on_card(check, shelf)
    if held is None:
        return _with(Finding(None, unheld(shelf, gpu.name)), point, gpu, command=True)
    return _with(held.predict(point, pick_scope(check.scope)), point, gpu)


def _speedup(check: SpeedupCheck, shelf: Shelf) -> Finding:
    gpu = load(Gpu, check.gpu)
    held = shelf.of(gpu.name)
    before, after = (_point(subject, held) for subject in (check.before, check.after))
    command = how_to_tell(
        gpu.name,
        (
            _suite_for(gpu.name, before.model)
            if before.recipe == after.recipe
            else f"a suite with {before.recipe.name} and {after.recipe.name}"
        ),
    )
    conditions = {"before": _conditions(before), "after": _conditions(after), "gpu": gpu.name}
    if held is not None:
        first, second = (held.predict(point, lambda e: e.video_s) for point in (before, after))
        if first.ours is None or second.ours is None:
            return Finding(
                None,
                (first if first.ours is None else second).why,
                command=command,
                conditions=conditions,
            )
        a, b = first.ours, second.ours
        provenance = (
            "extrapolated" if "extrapolated" in (a.provenance, b.provenance) else a.provenance
        )
        return Finding(
            replace(a.ratio(b), provenance=provenance),
            f"{first.why}, over that for {after.label}; speed alone, the picture is not judged",
            first.judges and second.judges,
            conditions=conditions,
            warnings=tuple(dict.fromkeys(first.warnings + second.warnings)),
        )
    lacking = unheld(shelf, gpu.name)
    steps = before.workload.steps / after.workload.steps
    if steps >= 1 and _same_but_for_steps(before, after):
        # Seconds are a x steps + b with a, b >= 0: never more than the steps' ratio, never less
        # than 1.
        flops = work_of(before).video_flops / work_of(after).video_flops
        why = (
            f"counted: {before.workload.steps} to {after.workload.steps} steps is at most"
            f" {plain(steps, 4)}x, and {plain(flops)}x in FLOPs with decode and text; {lacking}"
        )
        return Finding(
            Quantity(flops, 1.0, steps, provenance="counted"),
            why,
            command=command,
            conditions=conditions,
        )
    return Finding(
        None,
        f"two ways of running, which no count compares; {lacking}",
        command=command,
        conditions=conditions,
    )


def _same_but_for_steps(a: Point, b: Point) -> bool:
    def rest(workload: Workload) -> dict[str, object]:
        return workload.model_dump(exclude={"name", "description", "steps"})

    return a.model == b.model and a.recipe == b.recipe and rest(a.workload) == rest(b.workload)


CHECKERS: dict[type, Callable[[Any, Shelf], Finding]] = {
    CountCheck: _count,
    CompareCountsCheck: _compare_counts,
    CostCheck: _cost,
    UtilisationCheck: _utilisation,
    SpeedupCheck: _speedup,
    LatencyCheck: _latency,
}
