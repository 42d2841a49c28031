"""Public denoisers on several ranks: diffusers' own context parallelism, where a class has a plan.

`enable_parallelism` of diffusers asks for an accelerator, which a CPU is not; the same steps are
taken here one by one.
"""

import diffusers
import torch
import torch.distributed as dist
from diffusers import ContextParallelConfig, ParallelConfig
from diffusers.hooks import apply_context_parallel
from torch import nn

from models.parallel.mesh import Mesh
from models.parallel.spec import Parallel
from models.public.zoo import PublicDenoiser

BROKEN_PLANS = {
    "LTXVideoTransformer3DModel": "diffusers' plan for it fails on its text mask",
    "LTX2VideoTransformer3DModel": "diffusers' plan for it fails (diffusers issue 14316)",
}


def spread_public(denoiser: PublicDenoiser, mesh: Mesh) -> None:
    """Cut the sequence of every expert.  Raises ValueError for what diffusers cannot do."""
    parallel = mesh.parallel
    for expert in denoiser.experts:
        reason = _refusal(expert, parallel, mesh.devices.device_type)
        if reason is not None:
            raise ValueError(f"mesh {parallel.words()}: {reason}")
        if parallel.sequence > 1:
            _cut_sequence(expert, mesh)


def _refusal(expert: nn.Module, parallel: Parallel, device_type: str) -> str | None:
    name = type(expert).__name__
    if parallel.tensor > 1:
        return f"{name} is cut by diffusers, along ulysses and ring alone"
    if parallel.sequence == 1:
        return None
    if getattr(expert, "_cp_plan", None) is None:
        return f"diffusers {diffusers.__version__} has no context-parallel plan for {name}"
    if name in BROKEN_PLANS:
        return f"{name}: {BROKEN_PLANS[name]}"
    if parallel.ring > 1 and device_type == "cpu":
        return "diffusers' ring needs an attention kernel that returns its sums; no CPU has one"
    heads = expert.config.get("num_attention_heads")
    if heads is not None and heads % parallel.ulysses:
        return f"ulysses {parallel.ulysses} does not divide {heads} heads"
    return None


def _cut_sequence(expert: nn.Module, mesh: Mesh) -> None:
    parallel, device_type = mesh.parallel, mesh.devices.device_type
    config = ContextParallelConfig(
        ring_degree=parallel.ring,
        ulysses_degree=parallel.ulysses,
        # token counts that do not divide
        ulysses_anything=parallel.ring == 1,
        ring_anything=parallel.ulysses == 1,
    )
    whole = ParallelConfig(context_parallel_config=config)
    rank, device = dist.get_rank(), torch.device(device_type)
    whole.setup(rank, dist.get_world_size(), device, mesh=mesh.devices)
    for module in expert.modules():
        processor = getattr(module, "processor", None)
        if hasattr(processor, "_parallel_config"):
            processor._parallel_config = whole
    apply_context_parallel(expert, config, expert._cp_plan)
    _mend_logger()


def _mend_logger() -> None:
    """diffusers says by warning_once that a tensor is not cut (Wan's timestep, where all tokens
    share one); its logger has that only where transformers was imported."""
    from diffusers.hooks import context_parallel

    if not hasattr(context_parallel.logger, "warning_once"):
        context_parallel.logger.warning_once = context_parallel.logger.debug
