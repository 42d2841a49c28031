"""Build a point: its weights, its inputs, and its stages as calls under the recipe's settings."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch

from bench.core.errors import UserError
from bench.core.specs.model import Model, class_of, kind_of, with_denoiser
from bench.core.specs.point import Point
from bench.count.point import DTYPES, ModelCount, count_point, stage_request
from bench.count.trajectory import trajectory_count
from bench.measure.attention.correctness import WrongNumbers
from bench.measure.attention.fastest import Fastest, fastest_attention
from bench.measure.device.machine import this_machine
from bench.measure.device.memory import bytes_of
from bench.measure.errors import OutOfMemory, Unsupported, UserCodeFails
from bench.measure.recipes.apply import carry_out, held, is_compiled, under, unsupported
from bench.measure.timing.clock import Clock, clock_for
from bench.measure.worker.failures import classify
from models.parallel.spec import Parallel
from models.pipeline import PARTS_OF_STAGE, Drafter, VideoPipeline, build_pipeline
from models.python.faults import defined, in_user_code
from models.python.spec import python_parts
from models.stages import StageInputs, example_inputs, stage_calls

WEIGHTS_SEED, INPUTS_SEED = 0, 1


@contextlib.contextmanager
def said_of_user_code(points: Sequence[Point]) -> Iterator[None]:
    """Say where in a user's class an error arose.  Raises UserCodeFails, and WrongNumbers with the
    class's place."""
    parts = [part for point in points for part in python_parts(point.model)]
    try:
        yield
    except (OutOfMemory, Unsupported, UserError, MemoryError):
        raise
    except WrongNumbers as error:
        if not parts:
            raise
        raise WrongNumbers(f"{defined(parts[0])}: {error}", error.correctness) from error
    except Exception as error:
        if not parts or classify(error)[0] != "error":
            raise
        raise UserCodeFails(in_user_code(error, parts)) from error


def count_stages(point: Point) -> ModelCount:
    """Counts of every stage, forward and denoise_step included.  Raises Unsupported where the
    denoiser's class does not take the recipe's cache."""
    counted = count_point(point)
    if "trajectory" in point.stages:
        try:
            counted.stages["trajectory"] = trajectory_count(point, counted.stages["denoise_step"])
        except ValueError as error:
            raise Unsupported(str(error)) from None
    return counted


def check_supported(point: Point, device: torch.device) -> None:
    """Raises Unsupported with the reason, where a point's recipe cannot run here."""
    reason = unsupported(point.recipe, this_machine(device))
    if reason:
        raise Unsupported(reason)


@contextlib.contextmanager
def said_in_one_line(point: Point) -> Iterator[None]:
    """What torch raises for want of memory or of a kernel, as OutOfMemory and Unsupported."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(str(error).splitlines()[0]) from None
    except RuntimeError as error:
        if "No available kernel" in str(
            error
        ):  # SDPA held to a backend that does not take this head size or dtype
            raise Unsupported(
                f"SDPA backend {point.recipe.attention} has no kernel for {_heads(point)} in "
                f"{point.recipe.dtype} on this device"
            ) from None
        # The CPU allocator has no exception of its own.
        if "DefaultCPUAllocator" in str(error):
            raise OutOfMemory(str(error).splitlines()[0]) from None
        raise


def first_call(point: Point, call: Callable[[], object], clock: Clock) -> float | None:
    """Seconds of a stage's very first call where the recipe compiles, so that they are in no
    sample; else None."""
    return clock.time(call) if getattr(call, "compiled", point.recipe.compiles) else None


def build_calls(point: Point, device: torch.device) -> tuple[dict[str, Callable[..., object]], int]:
    """Build the point's parts and inputs on the device -> its stages as calls, held to the recipe's
    settings, and bytes of the inputs."""
    model, workload, dtype = point.model, point.workload, DTYPES[point.recipe.dtype]
    pipeline = build_pipeline(
        model.denoiser,
        model.vae,
        model.text_encoders,
        device=device,
        dtype=dtype,
        seed=WEIGHTS_SEED,
        stages=point.stages,
    )
    if model.weights and device.type != "meta":
        load_named_weights(pipeline, model)
    if point.recipe.draft is not None and "trajectory" in point.stages:
        pipeline.draft = build_draft(point, device)
    try:
        carry_out(pipeline, point.recipe)
    except ValueError as error:  # a class that diffusers' hooks do not take
        raise Unsupported(str(error)) from None
    if point.recipe.parallel is not None and point.recipe.on_several_ranks:
        spread(pipeline, point.recipe.parallel, device)
    inputs = inputs_of(point, pipeline, device, INPUTS_SEED)
    sampler = None
    if "trajectory" in point.stages:
        sampler = point.recipe.sampler_config(workload.steps)
    request = stage_request(
        model,
        workload,
        seed=INPUTS_SEED,
        chunk=point.recipe.vae_chunk,
        tiling=point.recipe.vae_tile,
        train="train_step" in point.stages,
        sampler=sampler,
        whole=True,
    )
    calls = stage_calls(pipeline, inputs, request)
    return hold(point, calls, device), bytes_of(vars(inputs))


def inputs_of(
    point: Point, pipeline: VideoPipeline, device: torch.device, seed: int
) -> StageInputs:
    """Random inputs of the point's workload."""
    return example_inputs(
        pipeline,
        batch=point.workload.batch,
        channels=point.model.denoiser.in_channels,
        latent_shape=point.model.latent_shape(point.workload),
        device=device,
        dtype=DTYPES[point.recipe.dtype],
        seed=seed,
    )


def load_named_weights(pipeline: VideoPipeline, model: Model) -> None:
    """Real weights into the parts that have them.  Raises UserError where they do not fit."""
    from models.load_real import load_real

    try:
        load_real(pipeline, model.weights or {})
    except ValueError as error:
        raise UserError(f"model {model.name}: {error}") from None


def spread(pipeline: VideoPipeline, parallel: Parallel, device: torch.device) -> None:
    """Put the pipeline on its mesh, with the other ranks.  Raises Unsupported with the reason."""
    from models.parallel.apply import parallelise
    from models.parallel.mesh import make_mesh

    try:
        parallelise(pipeline, make_mesh(parallel, device.type))
    except ValueError as error:
        raise Unsupported(f"parallel {parallel.words()}: {error}") from None


def hold(
    point: Point, calls: dict[str, Callable[..., object]], device: torch.device
) -> dict[str, Callable[..., object]]:
    """The stages' calls under the recipe's settings.  Each says its `recipe`, with the attention
    backend that `fastest` chose and the `candidates_s` it chose from, and whether it is
    `compiled`."""
    recipe, raced = point.recipe, Fastest(point.recipe.attention)
    if recipe.attention == "fastest":
        if (
            any(PARTS_OF_STAGE[stage] == "denoiser" for stage in point.stages)
            and "forward" in calls
        ):
            with under(recipe):
                raced = fastest_attention(calls["forward"], this_machine(device), clock_for(device))
        else:
            raced = Fastest("auto", reason="no denoiser that denoises to choose a backend by")
        recipe = recipe.model_copy(update={"attention": raced.backend})
    made = {}
    for stage, call in calls.items():
        made[stage] = held(call, recipe)
        vars(made[stage]).update(
            recipe=recipe,
            candidates_s=raced.seconds,
            reason=raced.reason,
            compiled=is_compiled(recipe, stage),
        )
    return made


def build_draft(point: Point, device: torch.device) -> Drafter:
    """The small model of a recipe's draft."""
    assert point.recipe.draft is not None
    model = with_denoiser(point.model, point.recipe.draft.denoiser)
    small = build_pipeline(
        model.denoiser,
        model.vae,
        (),
        device=device,
        dtype=DTYPES[point.recipe.dtype],
        seed=WEIGHTS_SEED,
        stages=("forward",),
    )
    return Drafter(small.denoiser, point.recipe.draft.schedule)


def _heads(point: Point) -> str:
    denoiser = point.model.denoiser
    own = kind_of(denoiser) in ("own", "autoregressive")
    return f"head_dim {denoiser.head_dim}" if own else f"the heads of {class_of(denoiser)}"
