"""One model at one workload: FLOPs by class and module, bytes, parameters, three counters that must
agree."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from bench.core.specs.model import Model, has_control, kind_of
from bench.core.specs.point import Point
from bench.core.specs.recipe import DTYPE_BYTES
from bench.core.specs.workload import Workload
from bench.count.checks import check, check_shapes, closed_forms, said_of_misfits
from bench.count.rules import PRODUCT_CLASSES
from bench.count.stage import count_decode_in_parts, stage_count
from bench.count.trace import Op, trace
from bench.results.counts import StageCount
from models.pipeline import PARTS_OF_STAGE, VideoPipeline, build_pipeline
from models.spec import TextEncoderConfig, VAEConfig
from models.stages import StageInputs, StageRequest, example_inputs, stage_calls
from models.vae.tiling import Tiling

META = torch.device("meta")
DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
assert DTYPES.keys() == DTYPE_BYTES.keys()


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


def bytes_of_weights(point: Point, params: dict[str, int]) -> int:
    """Bytes of the weights that a point's stages need, in its recipe's dtype.  params: by part, as
    ModelCount has them."""
    parts = {PARTS_OF_STAGE[stage] for stage in point.stages}
    return sum(params[part] for part in parts) * DTYPE_BYTES[point.recipe.dtype]


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


def stage_request(model: Model, workload: Workload, *, seed: int, **others: Any) -> StageRequest:
    """What a workload asks of a model's stages.  others: further fields of StageRequest."""
    return StageRequest(
        frames=workload.frames,
        height=workload.height,
        width=workload.width,
        steps=workload.steps,
        guided=workload.guidance == "cfg",
        encoded_frames=workload.encoded_frames,
        control=has_control(model),
        seed=seed,
        **others,
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
    stage, UncountedOperator (bench.count.rules) for an operator without a rule, and UserError where
    a public class does not take its spec, gives other shapes than the spec says, or a tensor is too
    large to be named."""
    shape = model.latent_shape(workload)
    pipeline, inputs = on_meta(model, workload, DTYPES[dtype])
    pipeline.guidance = guidance
    calls = stage_calls(pipeline, inputs, stage_request(model, workload, seed=0, train=train))
    traces, shapes = {}, {}
    for stage in [stage for stage in calls if stage != "vae_decode" or chunk is None]:
        with said_of_misfits(model, workload, f"{stage} does not take its inputs"):
            traces[stage] = trace(_noting_shape(calls[stage], stage, shapes))
    check_shapes(model, workload, shapes)
    expected = closed_forms(model, workload, shape)
    for stage, traced in traces.items():
        check(model, stage, traced, expected.get(stage))
    encoders = model.text_encoders
    own = {
        "denoiser": kind_of(model.denoiser) in ("own", "autoregressive"),
        "vae": isinstance(model.vae, VAEConfig),
        "text_encoder": all(isinstance(config, TextEncoderConfig) for config in encoders),
    }
    stages = {
        stage: stage_count(traced, own=own[PARTS_OF_STAGE[stage]])
        for stage, traced in traces.items()
    }
    if chunk is not None:
        stages["vae_decode"] = count_decode_in_parts(model, pipeline, inputs.latents, chunk, tiling)
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


def on_meta(
    model: Model, workload: Workload, dtype: torch.dtype
) -> tuple[VideoPipeline, StageInputs]:
    """All parts of a model, and inputs of a workload."""
    with said_of_misfits(model, workload, "its parts cannot be built"):
        pipeline = build_pipeline(
            model.denoiser, model.vae, model.text_encoders, device=META, dtype=dtype, seed=0
        )
    with said_of_misfits(model, workload, "it does not take its inputs"):
        inputs = example_inputs(
            pipeline,
            batch=workload.batch,
            channels=model.denoiser.in_channels,
            latent_shape=model.latent_shape(workload),
            device=META,
            dtype=dtype,
            seed=0,
        )
        pipeline.denoiser.prepare(inputs.latents)  # kept per shape: no part of a step
    return pipeline, inputs


def _noting_shape(
    call: Callable[[], Any], stage: str, shapes: dict[str, tuple[int, ...]]
) -> Callable[[], Any]:
    def noting() -> Any:
        out = call()
        if isinstance(out, torch.Tensor):
            shapes[stage] = tuple(out.shape)
        return out

    return noting


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
