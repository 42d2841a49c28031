"""Real steps of an own DiT in batches of mixed shapes, timed in turns: what the queue of
bench.studies.serving.queue runs on.

Shapes: R requests, C channels, T H W latents.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from bench.core.errors import UserError
from bench.core.specs.model import class_of
from bench.core.specs.point import Point
from bench.core.specs.recipe import DTYPE_BYTES
from bench.core.specs.suite import Sampling
from bench.core.specs.workload import Workload
from bench.count.closed.dit import dit_forward
from bench.count.point import DTYPES, stage_request
from bench.measure.attention.backends import sdpa_backend, unsupported_reason
from bench.measure.device.machine import this_machine
from bench.measure.device.memory import free_memory
from bench.measure.errors import OutOfMemory, Unsupported
from bench.measure.points.build import INPUTS_SEED, WEIGHTS_SEED
from bench.measure.timing.clock import Clock, clock_for
from bench.measure.timing.sampling import Run, take_turns
from bench.results.readings import Timing
from bench.studies.serving.queue import Composition, Policy, Shape, Sweep, sweep, trace
from bench.studies.serving.step_times import (
    MeasuredServing,
    ShapeCost,
    StepTime,
    StepTimes,
    grid,
    largest_batch,
)
from models import draw
from models.pipeline import VideoPipeline, build_pipeline
from models.spec import DiTConfig
from models.stages import example_inputs, stage_calls

GUIDANCE_SCALE = 5.0
BESIDE = ("text_encode", "condition_encode", "vae_decode")


def check_servable(points: Sequence[Point]) -> None:
    """Raises UserError where these points cannot share a batch."""
    model = points[0].model
    if not isinstance(model.denoiser, DiTConfig):
        raise UserError(
            f"model {model.name} is {class_of(model.denoiser)}: requests of different"
            " shapes are packed by own denoisers alone, for example tiny or sora-3b"
        )
    for point in points:
        workload = point.workload
        if workload.batch != 1:
            raise UserError(
                f"workload {workload.name} has batch {workload.batch}: a request is one video, so 1"
                " is needed"
            )
        if workload.guidance != points[0].workload.guidance:
            raise UserError(
                f"workload {workload.name} has guidance {workload.guidance},"
                f" {points[0].workload.name} has {points[0].workload.guidance}: requests that share"
                " a step need the same"
            )


def shape_costs(points: Sequence[Point]) -> tuple[ShapeCost, ...]:
    """Counted, by the closed form."""
    costs = []
    for point in points:
        forward = dit_forward(point.model.denoiser, point.model.latent_shape(point.workload), 1)
        forwards = point.workload.forwards_per_step
        costs.append(
            ShapeCost(
                point.model.tokens(point.workload),
                forwards * forward["linear"],
                forwards * forward["attention"],
            )
        )
    return tuple(costs)


def measure_serving(
    points: Sequence[Point],
    device: torch.device,
    clock: Clock,
    plan: Sampling,
    *,
    max_batch: int,
    token_budget: int,
    watch: Callable[[str], None] = lambda what: None,
) -> MeasuredServing:
    """Time steps of the batches of `grid`, and each workload's stages beside the steps.

    Raises OutOfMemory and Unsupported as measure_point does."""
    recipe, model = points[0].recipe, points[0].model
    reason = unsupported_reason(recipe.attention, this_machine(device))
    if reason:
        raise Unsupported(reason)
    _refuse_too_large(points[0], device)
    build = partial(
        build_pipeline, model.denoiser, model.vae, model.text_encoders, dtype=DTYPES[recipe.dtype]
    )
    costs, runs = shape_costs(points), {}
    try:
        with torch.inference_mode(), sdpa_backend(recipe.attention):
            pipeline = build(
                device=device, seed=WEIGHTS_SEED, stages=("forward", "denoise_step", *BESIDE)
            )
            for composition, packed in grid(costs, max_batch, token_budget):
                step = batch_step(
                    pipeline,
                    [p.workload for p in points],
                    composition,
                    packed=packed,
                    point=points[0],
                    device=device,
                )
                runs[composition, packed] = Run(partial(clock.time, step), plan, clock.now)
            names = {f"step {i + 1} of {len(runs)}": run for i, run in enumerate(runs.values())}
            take_turns(names, lambda name, samples: watch(name))
            beside = tuple(_beside(pipeline, point, device, clock, plan, watch) for point in points)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error):
            raise OutOfMemory(str(error).splitlines()[0]) from None
        raise
    times = tuple(_step_time(*batch, run.timing()) for batch, run in runs.items())
    shapes = tuple(_shape(*given) for given in zip(points, costs, beside, strict=True))
    return MeasuredServing(shapes, StepTimes(costs, times), beside)


def _step_time(composition: Composition, packed: bool, timing: Timing) -> StepTime:
    return StepTime(composition, packed, timing.median_s, timing.low_s, timing.high_s, timing.n)


def _shape(point: Point, cost: ShapeCost, stages: dict[str, Timing]) -> Shape:
    workload = point.workload
    beside_s = _beside_s(workload, stages)
    return Shape(workload.name, cost.tokens, workload.steps, beside_s, workload.video_s)


SAMPLING = Sampling(target_relative_half_width=0.03, min_samples=6, max_samples=200, max_s=0.3)


@dataclass(frozen=True)
class Load:
    """What is asked of a device, and how it may batch."""

    shares: Sequence[int]
    """How often each point's workload is asked for."""
    max_batch: int
    token_budget: int | None
    """Tokens of a packed batch; None: max_batch of the average request."""
    max_wait_s: float | None
    """Of the oldest request on an idle device; None: half of a request alone."""
    requests: int
    seed: int


def serve(
    points: Sequence[Point],
    device: torch.device,
    load: Load,
    watch: Callable[[str], None] = lambda what: None,
) -> tuple[MeasuredServing, list[Sweep]]:
    """Measure, then simulate four policies: one by one; batches of one shape; packed batches;
    packed, joining between steps.  Raises as measure_serving does."""
    costs, shares, max_batch = shape_costs(points), load.shares, load.max_batch
    token_budget, max_wait_s = load.token_budget, load.max_wait_s
    if token_budget is None:
        token_budget = round(max_batch * average([c.tokens for c in costs], shares))
    measured = measure_serving(
        points,
        device,
        clock_for(device),
        SAMPLING,
        max_batch=max_batch,
        token_budget=token_budget,
        watch=watch,
    )
    shapes, step_s = measured.shapes, measured.times.seconds
    if max_wait_s is None:
        alone = [
            shape.steps * step_s(tuple(int(i == j) for j in range(len(shapes)))) + shape.beside_s
            for i, shape in enumerate(shapes)
        ]
        max_wait_s = average(alone, shares) / 2
    most = max(largest_batch(cost, max_batch, token_budget) for cost in costs)
    named = f"one shape, up to {max_batch}"
    waits = {"joins": "batches", "max_wait_s": max_wait_s}
    policies = [
        Policy("one by one", 1, None, one_shape=False, joins="batches", max_wait_s=0.0),
        Policy(named, max_batch, None, one_shape=True, **waits),
        Policy("packed", most, token_budget, one_shape=False, **waits),
        Policy(
            "packed, joining", most, token_budget, one_shape=False, joins="steps", max_wait_s=0.0
        ),
    ]
    watch(f"{load.requests} requests at each rate")
    crowd = trace(load.requests, shares, load.seed)
    return measured, sweep(crowd, shapes, policies, step_s)


def average(values: Sequence[float], shares: Sequence[int]) -> float:
    return sum(v * s for v, s in zip(values, shares, strict=True)) / sum(shares)


def batch_step(
    pipeline: VideoPipeline,
    workloads: Sequence[Workload],
    composition: Composition,
    *,
    packed: bool,
    point: Point,
    device: torch.device,
) -> Callable[[], list[Tensor]]:
    """One denoising step of a batch, as a call: packed end to end, or with a batch dimension where
    all have one shape.

    Each request has a time of its own, as where requests join between steps."""
    generator, dtype = torch.Generator(device).manual_seed(INPUTS_SEED), DTYPES[point.recipe.dtype]
    denoiser, channels = pipeline.denoiser, point.model.denoiser.in_channels

    def randn(*shape: int) -> Tensor:
        return draw.normal(*shape, generator=generator, device=device, dtype=dtype)

    xs: list[Tensor] = []
    given: dict[bool, list[dict[str, Tensor]]] = {False: [], True: []}
    for workload, count in zip(workloads, composition, strict=True):
        latent = point.model.latent_shape(workload)
        for _ in range(count):
            xs.append(randn(1, channels, *latent))
            for unconditional in given:
                given[unconditional].append(
                    denoiser.example_condition(latent, 1, randn, unconditional=unconditional)
                )
    t = torch.linspace(1.0, 0.5, len(xs), device=device)
    if not packed:
        xs = [torch.cat(xs)]
        given = {
            u: [{name: torch.cat([c[name] for c in conditions]) for name in conditions[0]}]
            for u, conditions in given.items()
        }
    dt = -1.0 / workloads[0].steps

    def predict(unconditional: bool) -> list[Tensor]:
        if packed:
            return denoiser.forward_packed(xs, t, given[unconditional])
        return [denoiser(xs[0], t, **given[unconditional][0])]

    def step() -> list[Tensor]:
        velocities = [v[:, :channels] for v in predict(False)]
        if workloads[0].guidance == "cfg":
            velocities = [
                b[:, :channels] + GUIDANCE_SCALE * (v - b[:, :channels])
                for v, b in zip(velocities, predict(True), strict=True)
            ]
        return [x + dt * v for x, v in zip(xs, velocities, strict=True)]

    return step


def _beside(
    pipeline: VideoPipeline,
    point: Point,
    device: torch.device,
    clock: Clock,
    plan: Sampling,
    watch: Callable[[str], None],
) -> dict[str, Timing]:
    model, workload, recipe = point.model, point.workload, point.recipe
    inputs = example_inputs(
        pipeline,
        batch=1,
        channels=model.denoiser.in_channels,
        latent_shape=model.latent_shape(workload),
        device=device,
        dtype=DTYPES[recipe.dtype],
        seed=INPUTS_SEED,
    )
    request = stage_request(
        model, workload, seed=INPUTS_SEED, chunk=recipe.vae_chunk, tiling=recipe.vae_tile
    )
    calls = stage_calls(pipeline, inputs, request)
    runs = {
        stage: Run(partial(clock.time, calls[stage]), plan, clock.now)
        for stage in BESIDE
        if stage in calls
    }
    take_turns(runs, lambda stage, samples: watch(f"{workload.name}: {stage}"))
    return {stage: run.timing() for stage, run in runs.items()}


def _beside_s(workload: Workload, stages: dict[str, Timing]) -> float:
    """With guidance the empty prompt is encoded too."""
    return sum(
        t.median_s * (workload.forwards_per_step if stage == "text_encode" else 1)
        for stage, t in stages.items()
    )


def _refuse_too_large(point: Point, device: torch.device) -> None:
    """A host that swaps takes the machine with it, so what cannot fit is not tried."""
    meta = build_pipeline(
        point.model.denoiser,
        point.model.vae,
        point.model.text_encoders,
        device=torch.device("meta"),
        dtype=torch.float32,
        seed=0,
    )
    parts = [meta.denoiser, meta.vae, *meta.text_encoders]
    weights = (
        sum(p.numel() for part in parts for p in part.parameters())
        * DTYPE_BYTES[point.recipe.dtype]
    )
    free = free_memory(device)
    if free is not None and weights > 0.9 * free:
        raise OutOfMemory(
            f"the weights alone take {weights / 1e9:.3g} GB, {free / 1e9:.3g} GB are free; not"
            " tried"
        )
