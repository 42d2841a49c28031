"""One line about a preset."""

from typing import Any

from bench.core.specs.base import Spec
from bench.core.specs.claim import Claim
from bench.core.specs.gpu import Gpu
from bench.core.specs.model import Model
from bench.core.specs.recipe import Recipe
from bench.core.specs.suite import Suite
from bench.core.specs.workload import Workload
from bench.core.units import si
from bench.count.closed.ar import autoregressive_parameters
from bench.count.closed.dit import dit_parameters
from models.ar.spec import AutoregressiveConfig
from models.spec import DiTConfig


def describe(kind: str, spec: Spec) -> dict[str, Any]:
    """{kind name description summary ...} for `list`; the figures are counted (models) or claimed
    (gpus)."""
    entry: dict[str, Any] = {"kind": kind, "name": spec.name, "description": spec.description}
    match spec:
        case Model(denoiser=DiTConfig() as d):
            entry |= {
                "params": dit_parameters(d),
                "width": d.width,
                "depth": d.depth,
                "num_heads": d.num_heads,
                "source": spec.source,
            }
            entry["summary"] = (
                f"{entry['params'] / 1e6:,.0f} M parameters, {d.depth} x {d.width}, {d.attention}"
                " attention"
            )
        case Model(denoiser=AutoregressiveConfig() as d):
            entry |= {
                "params": autoregressive_parameters(d),
                "width": d.width,
                "depth": d.depth,
                "num_heads": d.num_heads,
                "source": spec.source,
            }
            entry["summary"] = (
                f"{entry['params'] / 1e6:,.0f} M parameters, {d.depth} x {d.width}, auto-regressive"
                f" over {d.vocabulary:,} tokens"
            )
        case Model(denoiser=d):
            entry |= {
                "params": None,
                "published": d.published,
                "diffusers": d.diffusers,
                "source": spec.source,
            }
            entry["summary"] = f"parameters: {d.published} (claimed), diffusers {d.diffusers}"
        case Workload():
            entry |= spec.model_dump(exclude={"name", "description"})
            entry["summary"] = (
                f"{spec.frames} x {spec.width}x{spec.height}, {spec.steps} steps, "
                f"guidance {spec.guidance}"
            )
        case Recipe():
            entry |= spec.model_dump(exclude={"name", "description"})
            beside = {
                k: v
                for k, v in spec.identity().items()
                if k not in ("dtype", "attention") and v is not None
            }
            entry["summary"] = ", ".join(
                [
                    f"{spec.dtype}, attention {spec.attention}",
                    *(f"{name} {value}" for name, value in beside.items()),
                ]
            )
        case Gpu():
            entry |= spec.model_dump(mode="json", exclude={"name", "description"})
            peak = spec.peak_flops_per_s.get("bf16")
            entry["summary"] = (
                f"{si(peak, 'FLOP/s')} bf16, {si(spec.bandwidth_bytes_per_s, 'B/s')} (claimed)"
                if peak and spec.bandwidth_bytes_per_s
                else "no datasheet"
            )
        case Suite():
            entry |= {"headline": spec.headline.model_dump()}
            entry["summary"] = f"headline {spec.headline.model} on {spec.headline.workload}"
        case Claim():
            entry |= {"statement": spec.statement, "check": spec.check.kind, "source": spec.source}
            entry["summary"] = f"{spec.check.kind}, tolerance {spec.tolerance:.0%} (claimed)"
    return entry
