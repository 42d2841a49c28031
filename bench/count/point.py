"""One model at one workload: FLOPs by class and module, bytes, parameters, three counters that must
agree."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from bench.core.errors import UserError
from bench.core.specs.model import Model, has_control
from bench.core.specs.point import Point
from bench.core.specs.recipe import DTYPE_BYTES
from bench.core.specs.workload import Workload
from bench.count import traffic
from bench.count.closed import ar as closed_autoregressive
from bench.count.closed import dit as closed_form
from bench.count.trace import PRODUCT_CLASSES, Op, Trace, UncountedOperator, trace
from bench.results.counts import Operators, StageCount
from models.ar.spec import AutoregressiveConfig
from models.pipeline import (
    PARTS_OF_STAGE,
    VideoPipeline,
    build_pipeline,
    example_inputs,
    stage_calls,
)
from models.spec import DiffusersDenoiser, DiffusersVAE, DiTConfig, VAEConfig
from models.vae.parts import decode_in_parts
from models.vae.tiling import Tiling, few_parts

META = torch.device("meta")
DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
assert DTYPES.keys() == DTYPE_BYTES.keys()


class CountMismatch(AssertionError):
    """Two counters disagree: a figure that must not be shown."""


@dataclass(frozen=True)
class ModelCount:
    """Everything counted; no provenance other than `counted`."""

    tokens: int
    latent_shape: tuple[int, int, int]
    params: dict[str, int]
    """denoiser, vae, text_encoder."""
    stages: dict[str, StageCount]
    """forward, denoise_step (or prefill and decode_token), vae_decode, vae_encode and, where they
    are run, condition_encode and text_encode."""
    cross_check: dict[str, int | None]
    """fvcore, torch_flop_counter, closed_form (null for public models): FLOPs of `forward`."""
    by_module: dict[str, dict[str, int]]
    """FLOPs of `forward` by module path, a module's children included, and class."""

    def weight_bytes(self, point: Point) -> int:
        """Bytes of the weights that a point's stages need, in its recipe's dtype."""
        parts = {PARTS_OF_STAGE[stage] for stage in point.stages}
        return sum(self.params[part] for part in parts) * DTYPE_BYTES[point.recipe.dtype]


def count_point(point: Point) -> ModelCount:
    """Count a point as its recipe runs it.  Raises as count_model."""
    return count_model(
        point.model,
        point.workload,
        point.recipe.dtype,
        chunk=point.recipe.vae_chunk,
        tiling=point.recipe.vae_tile,
        train="train_step" in point.stages,
        guidance=point.recipe.guidance,
    )


def count_model(
    model: Model,
    workload: Workload,
    dtype: str,
    *,
    chunk: int | None = None,
    tiling: Tiling | None = None,
    train: bool = False,
    guidance: str = "sequential",
) -> ModelCount:
    """Count on meta tensors; nothing is allocated.  chunk, tiling: the VAE decodes in such parts;
    train: a training step is counted too, which takes as long as all the rest; guidance: how a
    guided step gets its two answers.

    Raises CountMismatch where fvcore's rules, torch's counter and the closed form differ for any
    stage, UncountedOperator (bench.count.trace) for an operator without a rule, and UserError where
    a public class does not take its spec, gives other shapes than the spec says, or a tensor is too
    large to be named."""
    shape = model.latent_shape(workload)
    with _misfits(model, workload, "its parts cannot be built"):
        pipeline = build_pipeline(
            model.denoiser, model.vae, model.text_encoders, device=META, dtype=DTYPES[dtype], seed=0
        )
        pipeline.guidance = guidance
    with _misfits(model, workload, "it does not take its inputs"):
        inputs = example_inputs(
            pipeline,
            batch=workload.batch,
            channels=model.denoiser.in_channels,
            latent_shape=shape,
            device=META,
            dtype=DTYPES[dtype],
            seed=0,
        )
        calls = stage_calls(
            pipeline,
            inputs,
            frames=workload.frames,
            height=workload.height,
            width=workload.width,
            guided=workload.guidance == "cfg",
            steps=workload.steps,
            seed=0,
            encoded_frames=workload.encoded_frames,
            control=has_control(model),
            train=train,
        )
        pipeline.denoiser.prepare(inputs.latents)  # kept per shape: no part of a step
    traces, shapes = {}, {}
    for stage in [stage for stage in calls if stage != "vae_decode" or chunk is None]:
        with _misfits(model, workload, f"{stage} does not take its inputs"):
            traces[stage] = trace(_noting_shape(calls[stage], stage, shapes))
    _check_shapes(model, workload, shapes)
    expected = _closed_forms(model, workload, shape)
    for stage, traced in traces.items():
        _check(model, stage, traced, expected.get(stage))
    own = {
        "denoiser": not isinstance(model.denoiser, DiffusersDenoiser),
        "vae": isinstance(model.vae, VAEConfig),
        "text_encoder": True,
    }
    stages = {
        stage: stage_count(traced, own=own[PARTS_OF_STAGE[stage]])
        for stage, traced in traces.items()
    }
    if chunk is not None:
        stages["vae_decode"] = _count_decode_in_parts(
            model, pipeline, inputs.latents, chunk, tiling
        )
    return ModelCount(
        tokens=model.tokens(workload),
        latent_shape=shape,
        params=_params(pipeline),
        stages={stage: stages[stage] for stage in calls},
        cross_check={
            "fvcore": sum(traces["forward"].flops_by_class().values()),
            "torch_flop_counter": traces["forward"].torch_flops,
            "closed_form": sum(expected["forward"].values()) if "forward" in expected else None,
        },
        by_module=_by_module(traces["forward"].ops),
    )


@contextmanager
def _misfits(model: Model, workload: Workload, what: str) -> Iterator[None]:
    """Say in one line that a public class does not take what its spec gives it, or that a size is
    beyond torch's.

    Own modules take whatever their spec lets through, so any other error of theirs is a bug and
    keeps its traceback."""
    public = [
        part
        for part in (model.denoiser, model.vae)
        if isinstance(part, (DiffusersDenoiser, DiffusersVAE))
    ]
    try:
        yield
    except (CountMismatch, UncountedOperator):
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if isinstance(error, (RuntimeError, OverflowError)) and "overflow" in reason.lower():
            raise UserError(
                f"model {model.name}, workload {workload.name}: {what}: a tensor of more than 2**63"
                " bytes; make one of the two smaller"
            ) from None
        if not public:
            raise
        raise UserError(
            f"model {model.name}: {what}:"
            f" {' and '.join(f'diffusers {p.diffusers}' for p in public)} with the spec's config:"
            f" {reason}"
        ) from error


def _noting_shape(
    call: Callable[[], Any], stage: str, shapes: dict[str, tuple[int, ...]]
) -> Callable[[], Any]:
    def noting() -> Any:
        out = call()
        if isinstance(out, torch.Tensor):
            shapes[stage] = tuple(out.shape)
        return out

    return noting


def _check_shapes(model: Model, workload: Workload, shapes: dict[str, tuple[int, ...]]) -> None:
    """What comes out must be what the spec says: a wrong factor or channel count makes every figure
    wrong."""
    latents = (workload.batch, model.vae.latent_channels, *model.latent_shape(workload))
    pixels = (workload.batch, 3, workload.frames, workload.height, workload.width)
    drawn = (
        {}
        if model.autoregressive
        else dict.fromkeys(("forward", "denoise_step"), (latents, "denoiser.in_channels"))
    )
    said = {
        **drawn,
        "vae_decode": (pixels, "vae.spatial_factor, temporal_factor, first_frame_alone"),
        "vae_encode": (
            latents,
            "vae.latent_channels, spatial_factor, temporal_factor, first_frame_alone",
        ),
    }
    for stage, (expected, fields) in said.items():
        if (
            stage in shapes and shapes[stage] != expected
        ):  # own VAEs decode in parts, and are held by the closed form
            raise UserError(
                f"model {model.name}: {stage} gives {shapes[stage]} where the spec says {expected};"
                f" its class and its spec ({fields}) do not agree"
            )


def stage_count(traced: Trace, *, own: bool) -> StageCount:
    """Sum a stage's operators.  own: of our own modules."""
    ops = traced.ops
    return StageCount(
        **{f"{kind}_flops": flops for kind, flops in traced.flops_by_class().items()},
        norm_flops=sum(op.norm_flops for op in ops),
        bytes_modelled_min=traffic.modelled_min(ops),
        bytes_modelled_max=traffic.modelled_max(ops),
        bytes_elementwise=traffic.elementwise(ops),
        bytes_largest_operator=traffic.largest_operator(ops),
        bytes_peak_activations=traced.peak_bytes,
        kernels=len(ops),
        uncounted_ops=dict(
            sorted(Counter(op.name for op in ops if op.kind not in PRODUCT_CLASSES).items())
        ),
        operators=traffic.operators(ops, own=own),
    )


def _count_decode_in_parts(
    model: Model, pipeline: VideoPipeline, latents: torch.Tensor, chunk: int, tiling: Tiling | None
) -> StageCount:
    """All inner parts cost the same, so two short clips tell what one costs; tracing a minute would
    take one."""

    def traced(frames: int) -> StageCount:
        short = latents[:, :, :frames]
        counted = trace(lambda: decode_in_parts(pipeline.vae, short, chunk=chunk, tiling=tiling))
        _check(
            model,
            "vae_decode",
            counted,
            closed_form.vae_decode(
                model.vae, tuple(short.shape[2:]), latents.shape[0], chunk, tiling
            ),
        )
        return stage_count(counted, own=True)

    frames, few = latents.shape[2], few_parts(model.vae, latents.shape[2], chunk)
    long = traced(few)
    if few == frames:
        return long
    short, more = traced(few - chunk), (frames - few) // chunk
    total = {}
    for name, value in long:
        if name == "uncounted_ops":
            total[name] = {
                op: n + more * (n - short.uncounted_ops.get(op, 0)) for op, n in value.items()
            }
        elif name == "operators":
            total[name] = _more(value.rows(), short.operators.rows(), more)
        elif name == "bytes_largest_operator":
            total[name] = value
        else:  # the peak grows too: by the finished frames, for which there is room from the start
            total[name] = value + more * (value - getattr(short, name))
    return StageCount(**total)


def _more(long: Counter[tuple], short: Counter[tuple], more: int) -> Operators:
    """The long clip's operators and `more` times what it has over the short one.

    Those on the whole clip are as many in both and grow with it: m, FLOPs and bytes go on as they
    went."""
    same = {
        row: n + more * (n - short[row])
        for row, n in long.items()
        if short[row] and n >= short[row]
    }
    grown = sorted((row, n) for row, n in long.items() if row not in same)
    began = sorted((row, n) for row, n in short.items() if row not in same)
    total = Counter(same)
    for i, ((kind, m, n, k, *work), calls) in enumerate(grown):
        pair = (
            began[i]
            if len(began) == len(grown) and began[i][0][0] == kind and began[i][1] == calls
            else None
        )
        if pair is not None:
            (_, before_m, _, _, *before), _ = pair
            m += more * (m - before_m)
            work = [now + more * (now - then) for now, then in zip(work, before, strict=True)]
        total[(kind, m, n, k, *work)] += calls
    return Operators.of(total)


def _closed_forms(
    model: Model, workload: Workload, shape: tuple[int, int, int]
) -> dict[str, dict[str, int]]:
    """FLOPs by class of the stages whose part is our own: a public class has no closed form
    here."""
    batch, forms = workload.batch, {}
    if isinstance(model.denoiser, DiTConfig):
        forms["forward"] = closed_form.dit_forward(model.denoiser, shape, batch)
        forms["train_step"] = closed_form.dit_train(model.denoiser, shape, batch)
    if isinstance(model.denoiser, AutoregressiveConfig):
        forms |= closed_autoregressive.stages(
            model.denoiser, shape, batch, batch * workload.forwards_per_step
        )
    if isinstance(model.vae, VAEConfig):
        forms["vae_decode"] = closed_form.vae_decode(model.vae, shape, batch)
        forms["vae_encode"] = closed_form.vae_encode(
            model.vae, workload.frames, workload.height, workload.width, batch
        )
        clips = [workload.encoded_frames] * (workload.encoded_frames > 0) + [
            workload.frames
        ] * has_control(model)
        if clips:
            forms["condition_encode"] = _total(
                [
                    closed_form.vae_encode(
                        model.vae, frames, workload.height, workload.width, batch
                    )
                    for frames in clips
                ]
            )
    if model.text_encoders:
        per_encoder = [closed_form.text_encode(config, batch) for config in model.text_encoders]
        forms["text_encode"] = _total(per_encoder)
    return forms


def _total(forms: list[dict[str, int]]) -> dict[str, int]:
    return {kind: sum(form[kind] for form in forms) for kind in PRODUCT_CLASSES}


def _check(model: Model, stage: str, traced: Trace, expected: dict[str, int] | None) -> None:
    by_class = traced.flops_by_class()
    if expected is not None and by_class != expected:
        raise CountMismatch(
            f"model {model.name}, {stage}: fvcore's rules give {by_class}, the closed form"
            f" {expected}"
        )
    if traced.torch_flops != sum(by_class.values()):
        raise CountMismatch(
            f"model {model.name}, {stage}: fvcore's rules give {sum(by_class.values())} FLOPs, "
            f"torch's counter {traced.torch_flops}"
        )


def _params(pipeline: VideoPipeline) -> dict[str, int]:
    parts = {
        "denoiser": [pipeline.denoiser],
        "vae": [pipeline.vae],
        "text_encoder": pipeline.text_encoders,
    }
    return {
        name: sum(p.numel() for module in modules for p in module.parameters())
        for name, modules in parts.items()
    }


def _by_module(ops: list[Op]) -> dict[str, dict[str, int]]:
    totals: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(PRODUCT_CLASSES, 0))
    for op in ops:
        if op.macs:
            path = op.module.split(".")
            for depth in range(1, len(path) + 1):
                totals[".".join(path[:depth])][op.kind] += 2 * op.macs
    return dict(totals)
