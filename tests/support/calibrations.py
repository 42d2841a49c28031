"""A cost model whose parameters are known, and what is made of it."""

from typing import get_args

import numpy as np

from bench.calibrate.calibration import (
    Calibration,
    Ceiling,
    Errors,
    Fit,
    FittedParameter,
    ProbedSizes,
    Range,
)
from bench.calibrate.cost.ceilings import Ceilings
from bench.calibrate.cost.parameters import NAMES, PRIOR
from bench.calibrate.cost.work import Work
from bench.calibrate.predict import predict
from bench.core.load import load_point
from bench.results.counts import Operators
from support.records import count

TRUTH = dict(zip(NAMES, PRIOR, strict=True)) | {
    "linear_efficiency": 0.65,
    "linear_half_size": 60.0,
    "attention_efficiency": 0.45,
    "attention_half_length": 100.0,
    "conv_efficiency": 0.3,
    "conv_half_size": 20.0,
    "memory_efficiency": 0.8,
    "kernel_s": 8e-6,
    "call_s": 1e-4,
    "activation_efficiency": 0.6,
}


THETA = np.array(list(TRUTH.values()))


CEILINGS = Ceilings(
    gemm_flops_per_s=800e12,
    attention_flops_per_s=600e12,
    conv_flops_per_s=400e12,
    copy_bytes_per_s=2.9e12,
    activation_bytes_per_s=2.5e12,
    gemm_size=(8192, 8192, 8192),
    attention_size=(16384, 16384, 128),
    conv_size=(10**6, 256, 6912),
    ladder=((1e6, 6e12), (5e7, 5e12), (1e9, 2.9e12)),
)


def work(rng: np.random.Generator, conv: bool) -> tuple[Work, int, int]:
    """A transformer of some width, depth and length, and perhaps a decoder -> (its work, FLOPs,
    tokens)."""
    tokens, width = int(2 ** rng.uniform(8, 15)), 128 * int(rng.integers(2, 24))
    depth, head = int(rng.integers(2, 40)), int(rng.choice([64, 128]))
    linear = [
        (tokens, 3 * width, width),
        (tokens, width, width),
        (tokens, 4 * width, width),
        (tokens, width, 4 * width),
    ]
    rows = [("linear", *size, 2 * int(np.prod(size)), 0, 0, depth) for size in linear]
    rows.append(("attention", tokens, tokens, head, 4 * tokens * tokens * width, 0, 0, depth))
    rows += [
        ("memory", 0, 0, 0, 0, 4 * tokens * width, 0, int(rng.integers(4, 40)) * depth),
        ("activation", 0, 0, 0, 0, 16 * tokens * width, 0, depth),
    ]
    if conv:
        channels = 32 * int(rng.integers(1, 8))
        rows.append(
            (
                "conv",
                64 * tokens,
                channels,
                27 * channels,
                2 * 64 * tokens * channels * 27 * channels,
                0,
                0,
                12,
            )
        )
    columns = list(zip(*rows, strict=True))
    made = Work.of(
        count(
            operators=Operators(
                **dict(zip(Operators.model_fields, map(list, columns), strict=True))
            )
        )
    )
    return made, int((made.flops * made.calls).sum()), tokens


BARE = Ceilings(
    gemm_flops_per_s=800e12,
    attention_flops_per_s=600e12,
    conv_flops_per_s=400e12,
    copy_bytes_per_s=2e12,
)


def theta(**values: float | None) -> dict[str, float | None]:
    return dict(zip(NAMES, PRIOR, strict=True)) | {"call_s": 0.0, "kernel_s": 0.0} | values


def operators(*rows: tuple) -> Work:
    """Rows of (kind, m, n, k, flops, bytes, bytes_out, calls)."""
    columns = map(list, zip(*rows, strict=True))
    return Work.of(
        count(operators=Operators(**dict(zip(Operators.model_fields, columns, strict=True))))
    )


def calibration(conv: float | None = 0.3, power: float | None = None) -> Calibration:
    values = theta(
        linear_efficiency=0.5,
        attention_efficiency=0.5,
        conv_efficiency=conv,
        memory_efficiency=1.0,
        kernel_s=1e-6,
        call_s=1e-8,
    )
    parameters = {
        n: FittedParameter(
            value=v, low=v, high=v, unit="", at_bound=False, identified=v is not None
        )
        for n, v in values.items()
    }
    rates = {name: getattr(BARE, name) for name in get_args(Ceiling)}
    fitted = Fit(
        recipe="eager-bf16",
        dtype="bf16",
        attention="auto",
        ceilings=rates,
        probed=ProbedSizes(),
        parameters=parameters,
        draws=[[v or 1.0 for v in values.values()]] * 4,
        residuals=[-0.1, 0.0, 0.1],
        leave_one_out=Errors(mean=0.05, median=0.05, worst=0.1, n=3),
        leave_one_out_by_stage={},
        upward=None,
        leave_a_size_out=None,
        noise_floor=None,
        constant_mfu_baseline=None,
        constant_mfu_flops_per_s=None,
        converged=True,
        ranges={"tokens": Range(low=100, high=1024)},
        stages=[],
    )
    return Calibration(
        gpu="h100-sxm",
        device_name="x",
        suite="s",
        headline_recipe="eager-bf16",
        headline=None,
        headline_missing=None,
        reference=None,
        reference_missing=None,
        fits={"eager-bf16": fitted},
        power_w=power,
    )


def estimate(workload="image-512", c=None, gpu=None):
    c = c or calibration()
    point = load_point("sora-3b", workload, "eager-bf16")
    counts = {
        "denoise_step": count(linear_flops=8 * 10**14),
        "vae_decode": count(conv_flops=12 * 10**13),
        "text_encode": count(linear_flops=4 * 10**14),
    }
    return predict(point, counts, {"denoiser": 3 * 10**9}, c, c.fit_for(None), gpu)
