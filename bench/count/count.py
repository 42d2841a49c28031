"""One model at one workload: FLOPs by class and module, bytes, parameters, three counters that must agree."""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from bench.core.records import StageCount
from bench.core.spec import DTYPE_BYTES, Model, Workload
from bench.count import closed_form, traffic
from bench.count.flops import PRODUCT_CLASSES, Op, torch_flops, trace
from models.pipeline import VideoPipeline, build_pipeline, example_inputs, stage_calls

META = torch.device("meta")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
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
    """forward, denoise_step, vae_decode, vae_encode and, where there is one, text_encode."""
    cross_check: dict[str, int]
    """fvcore, torch_flop_counter, closed_form: FLOPs of `forward`."""
    by_module: dict[str, dict[str, int]]
    """FLOPs of `forward` by module path, a module's children included, and class."""


def count_model(model: Model, workload: Workload, dtype: str) -> ModelCount:
    """Count on meta tensors; nothing is allocated.

    Raises CountMismatch where fvcore's rules, torch's counter and the closed form differ for any stage, and
    UncountedOperator (bench.count.flops) for an operator without a rule."""
    shape = model.latent_shape(workload)
    pipeline = build_pipeline(model.denoiser, model.vae, model.text_encoder, device=META, dtype=DTYPES[dtype], seed=0)
    inputs = example_inputs(pipeline, batch=workload.batch, latent_shape=shape, device=META, dtype=DTYPES[dtype], seed=0)
    calls = stage_calls(pipeline, inputs, frames=workload.frames, height=workload.height, width=workload.width,
                        guided=workload.guidance == "cfg", steps=workload.steps, seed=0)
    calls["forward"]()     # positions are computed once per shape and kept: no part of a step
    traces = {stage: trace(call) for stage, call in calls.items()}
    expected = _closed_forms(model, workload, shape)
    by_torch = {stage: _check(model, stage, traces[stage], calls[stage], flops) for stage, flops in expected.items()}
    return ModelCount(
        tokens=model.tokens(workload), latent_shape=shape, params=_params(pipeline),
        stages={stage: stage_count(ops) for stage, ops in traces.items()},
        cross_check={
            "fvcore": _flops(traces["forward"]), "torch_flop_counter": by_torch["forward"],
            "closed_form": sum(expected["forward"].values()),
        },
        by_module=_by_module(traces["forward"]),
    )


def stage_count(ops: list[Op]) -> StageCount:
    """Sum a stage's operators."""
    by_class = {kind: 2 * sum(op.macs for op in ops if op.kind == kind) for kind in PRODUCT_CLASSES}
    return StageCount(
        **{f"{kind}_flops": flops for kind, flops in by_class.items()},
        norm_flops=sum(op.norm_flops for op in ops),
        bytes_modelled_min=traffic.modelled_min(ops), bytes_modelled_max=traffic.modelled_max(ops),
        bytes_elementwise=traffic.elementwise(ops), bytes_largest_operator=traffic.largest_operator(ops),
        kernels=len(ops),
        uncounted_ops=dict(sorted(Counter(op.name for op in ops if op.kind not in PRODUCT_CLASSES).items())),
    )


def _closed_forms(model: Model, workload: Workload, shape: tuple[int, int, int]) -> dict[str, dict[str, int]]:
    batch = workload.batch
    forms = {
        "forward": closed_form.dit_forward(model.denoiser, shape, batch),
        "vae_decode": closed_form.vae_decode(model.vae, shape, batch),
        "vae_encode": closed_form.vae_encode(model.vae, workload.frames, workload.height, workload.width, batch),
    }
    if model.text_encoder is not None:
        forms["text_encode"] = closed_form.text_encode(model.text_encoder, batch)
    return forms


def _check(model: Model, stage: str, ops: list[Op], call: Callable[[], Any], expected: dict[str, int]) -> int:
    traced = {kind: 2 * sum(op.macs for op in ops if op.kind == kind) for kind in PRODUCT_CLASSES}
    if traced != expected:
        raise CountMismatch(f"model {model.name}, {stage}: fvcore's rules give {traced}, the closed form {expected}")
    by_torch = torch_flops(call)
    if by_torch != sum(expected.values()):
        raise CountMismatch(f"model {model.name}, {stage}: fvcore's rules give {sum(traced.values())} FLOPs, "
                            f"torch's counter {by_torch}")
    return by_torch


def _flops(ops: list[Op]) -> int:
    return 2 * sum(op.macs for op in ops)


def _params(pipeline: VideoPipeline) -> dict[str, int]:
    parts = {"denoiser": pipeline.denoiser, "vae": pipeline.vae, "text_encoder": pipeline.text_encoder}
    return {name: sum(p.numel() for p in part.parameters()) if part is not None else 0 for name, part in parts.items()}


def _by_module(ops: list[Op]) -> dict[str, dict[str, int]]:
    totals: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(PRODUCT_CLASSES, 0))
    for op in ops:
        if op.macs:
            path = op.module.split(".")
            for depth in range(1, len(path) + 1):
                totals[".".join(path[:depth])][op.kind] += 2 * op.macs
    return dict(totals)
