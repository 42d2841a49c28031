"""A preset as an entry of `list --json`, with a summary of one line."""

from typing import Any

from bench.core.specs.base import Spec
from bench.core.specs.claim import Claim
from bench.core.specs.demand import Demand
from bench.core.specs.gpu import Gpu
from bench.core.specs.model import Model
from bench.core.specs.recipe import Recipe
from bench.core.specs.suite import Suite
from bench.core.specs.workload import Workload
from bench.core.units import si
from bench.count.closed.ar import autoregressive_parameters
from bench.count.closed.dit import dit_parameters
from models.ar.spec import AutoregressiveConfig
from models.spec import DiTConfig, PythonDenoiser


def describe(kind: str, spec: Spec) -> dict[str, Any]:
    """{kind name description summary ...}; figures are counted (models) or claimed (gpus)."""
    fields, summary = _described(spec)
    named = {"kind": kind, "name": spec.name, "description": spec.description}
    return {**named, **fields, "summary": summary}


def _described(spec: Spec) -> tuple[dict[str, Any], str]:
    """Fields beside name and description, and the summary."""
    match spec:
        case Model():
            return _model(spec)
        case Workload() as w:
            size = f"{w.frames} x {w.width}x{w.height}"
            return _fields(w), f"{size}, {w.steps} steps, guidance {w.guidance}"
        case Recipe() as r:
            chosen = {name: value for name, value in r.identity().items() if value is not None}
            others = [f"{n} {v}" for n, v in chosen.items() if n not in ("dtype", "attention")]
            return _fields(r), ", ".join([f"{r.dtype}, attention {r.attention}", *others])
        case Gpu():
            return _fields(spec), _datasheet(spec)
        case Suite(headline=headline):
            words = f"headline {headline.model} on {headline.workload}"
            return {"headline": headline.model_dump()}, words
        case Claim(check=check) as c:
            fields = {"statement": c.statement, "check": check.kind, "source": c.source}
            return fields, f"{check.kind}, tolerance {c.tolerance:.0%} (claimed)"
        case Demand() as d:
            minutes = f"{d.minutes_per_day:,.0f} minutes a day"
            clips = ", ".join(clip.workload for clip in d.clips)
            return {"minutes_per_day": d.minutes_per_day}, f"{minutes} as {clips}"
    return {}, ""


def _fields(spec: Spec) -> dict[str, Any]:
    return spec.model_dump(mode="json", exclude={"name", "description"})


def _datasheet(gpu: Gpu) -> str:
    peak, bandwidth = gpu.peak_flops_per_s.get("bf16"), gpu.bandwidth_bytes_per_s
    if not peak or not bandwidth:
        return "no datasheet"
    return f"{si(peak, 'FLOP/s')} bf16, {si(bandwidth, 'B/s')} (claimed)"


def _model(model: Model) -> tuple[dict[str, Any], str]:
    match model.denoiser:
        case DiTConfig() as d:
            params, kind = dit_parameters(d), f"{d.attention} attention"
        case AutoregressiveConfig() as d:
            params = autoregressive_parameters(d)
            kind = f"auto-regressive over {d.vocabulary:,} tokens"
        case PythonDenoiser() as d:
            words = f"class {d.python}"
            return {"params": None, "python": d.python, "source": model.source}, words
        case d:
            published = {"published": d.published, "diffusers": d.diffusers}
            words = f"parameters: {d.published} (claimed), diffusers {d.diffusers}"
            return {"params": None, **published, "source": model.source}, words
    shape = {"width": d.width, "depth": d.depth, "num_heads": d.num_heads}
    words = f"{params / 1e6:,.0f} M parameters, {d.depth} x {d.width}, {kind}"
    return {"params": params, **shape, "source": model.source}, words
