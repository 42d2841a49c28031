"""The document of `count --json`; keys may be added, never renamed."""

from typing import Any

from bench.core.load import load, names
from bench.core.specs.gpu import Gpu
from bench.core.specs.point import Point
from bench.core.specs.recipe import DTYPE_BYTES
from bench.count.closed import ar as closed_autoregressive
from bench.count.fits import fits_memory
from bench.count.point import ModelCount
from models.ar.spec import AutoregressiveConfig


def count_document(point: Point, counted: ModelCount) -> dict[str, Any]:
    """Everything about one model at one workload.  Provenance: counted; bytes are modelled."""
    workload, stages = point.workload, counted.stages
    forward = stages["forward"]
    by_class = {
        kind: getattr(forward, f"{kind}_flops") for kind in ("linear", "attention", "conv", "other")
    }
    # A step is one denoising step, or of an auto-regressive model one token.
    step_flops = stages["decode_token" if point.model.autoregressive else "denoise_step"].flops
    # With guidance the empty prompt is encoded too.
    text = 0
    if "text_encode" in stages:
        text = stages["text_encode"].flops * workload.forwards_per_step
    condition = stages["condition_encode"].flops if "condition_encode" in stages else 0
    made, tokens = _generation(point, counted)
    return {
        "model": point.model.name,
        "workload": workload.name,
        "provenance": "counted",
        "params": counted.params["denoiser"],
        "params_by_part": counted.params,
        "tokens": counted.tokens,
        "latent_shape": list(counted.latent_shape),
        "batch": workload.batch,
        "forwards_per_step": workload.forwards_per_step,
        "steps": tokens["decode_calls"] if tokens else workload.steps,
        "forward": {
            "flops": forward.flops,
            "macs": forward.flops // 2,
            "linear_only_flops": forward.linear_flops,
            "by_class": by_class,
            "norm_flops": forward.norm_flops,
        },
        "step_flops": step_flops,
        "text_encode_flops": text,
        "condition_encode_flops": condition,
        "vae_encode_flops": stages["vae_encode"].flops,
        "vae_decode_flops": stages["vae_decode"].flops,
        "video_flops": made + stages["vae_decode"].flops + condition + text,
        "bytes": {
            "modelled_min": forward.bytes_modelled_min,
            "modelled_max": forward.bytes_modelled_max,
        },
        **({"autoregressive": tokens} if tokens else {}),
        **({"train_step_flops": stages["train_step"].flops} if "train_step" in stages else {}),
        **_memory(point, counted),
        "cross_check": counted.cross_check,
        "uncounted_ops": forward.uncounted_ops,
        "by_module": counted.by_module,
    }


def _memory(point: Point, counted: ModelCount) -> dict[str, Any]:
    """Modelled bytes, and which cards hold weights and a step; the decode apart, since it can run
    after the denoiser has left the card."""
    stages, params = counted.stages, counted.params
    step = "prefill" if point.model.autoregressive else "denoise_step"
    cards = {name: load(Gpu, name).memory_bytes for name in names("gpus")}

    def fits(part: str, stage: str) -> dict[str, Any]:
        return {
            name: fits_memory(point, stages, params, memory, part, stage)
            for name, memory in cards.items()
        }

    return {
        "memory": {
            "provenance": "modelled",
            "weights_bytes": {
                part: n * DTYPE_BYTES[point.recipe.dtype] for part, n in params.items()
            },
            "forward_peak_bytes": stages["forward"].bytes_peak_activations,
            "vae_decode_peak_bytes": stages["vae_decode"].bytes_peak_activations,
        },
        "fits": fits("denoiser", step),
        "fits_vae_decode": fits("vae", "vae_decode"),
    }


def _generation(point: Point, counted: ModelCount) -> tuple[int, dict[str, int] | None]:
    """FLOPs of all that makes the latents; of an auto-regressive model also what its calls are."""
    denoiser, workload = point.model.denoiser, point.workload
    if not isinstance(denoiser, AutoregressiveConfig):
        return workload.steps * counted.stages["denoise_step"].flops, None
    plan, rows = denoiser.plan(counted.latent_shape), workload.batch * workload.forwards_per_step
    return closed_autoregressive.video_flops(denoiser, counted.latent_shape, rows), {
        "prefill_calls": plan.prefill_calls,
        "prefill_tokens": plan.prefill_tokens,
        "decode_calls": plan.decode_calls,
        "cache_length": plan.cache_length,
        "prefill_flops": counted.stages["prefill"].flops,
        "decode_token_flops": counted.stages["decode_token"].flops,
        "decode_token_bytes_modelled_min": counted.stages["decode_token"].bytes_modelled_min,
        "cache_bytes": DTYPE_BYTES[point.recipe.dtype]
        * closed_autoregressive.cache_elements(denoiser, rows, plan.context),
    }
