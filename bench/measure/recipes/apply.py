"""How a recipe is carried out on a built pipeline: what it needs of the machine, what it does to
the denoiser, and the settings that its calls run under.  One place, so that a recipe means the same
in a suite, in turns and in a check.

What each needs is said before anything is built: a recipe that cannot run is skipped with that
reason.
"""

import contextlib
import functools
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from bench.core.specs.recipe import Recipe
from bench.measure.attention.backends import AMPERE, sdpa_backend, unsupported_reason
from bench.measure.device.machine import Machine
from bench.measure.recipes.cudnn import benchmarked
from bench.measure.recipes.graphs import graph_forward
from bench.measure.recipes.quantise import make_sparse, quantise
from bench.measure.timing.launch import capture_graph
from models.caching.apply import apply_cache
from models.denoiser import blocks_of
from models.pipeline import PARTS_OF_STAGE, VideoPipeline
from models.vae.model import VideoVAE

ADA = (8, 9)  # FP8 products came with it (CUDA C++ programming guide, tensor cores)


def unsupported(recipe: Recipe, machine: Machine) -> str | None:
    """Why a recipe cannot run on a machine, in one line; None where it can."""
    on_cuda = None if machine.kind == "cuda" else "needs CUDA"
    by_torchao = recipe.quantise in ("fp8", "int8-weight", "int8-dynamic")
    needs = [
        (recipe.dtype == "tf32", f"dtype {recipe.dtype}", machine.lacks_capability(AMPERE)),
        (
            recipe.dtype == "fp16",
            "dtype fp16",
            on_cuda and f"{on_cuda}: a CPU's float16 convolutions take minutes",
        ),
        (recipe.quantise == "fp8", "quantise fp8", machine.lacks_capability(ADA)),
        (
            by_torchao,
            f"quantise {recipe.quantise}",
            machine.lacks_package("torchao", "pip install 'ldt-bench[quantise]'"),
        ),
        (
            recipe.sparsity != "none",
            f"sparsity {recipe.sparsity}",
            machine.lacks_capability(AMPERE),
        ),
        (
            recipe.compile == "autotune",
            "compile autotune",
            on_cuda and f"{on_cuda}, for its graphs",
        ),
        (recipe.compile != "none", f"compile {recipe.compile}", machine.lacks_inductor()),
        (
            recipe.compile_vae != "none",
            f"compile_vae {recipe.compile_vae}",
            machine.lacks_inductor(),
        ),
        (recipe.cuda_graph, "cuda_graph", on_cuda),
        (recipe.on_several_ranks, "parallel", machine.lacks_ranks(recipe.parallel)),
        (recipe.cudnn_benchmark, "cudnn_benchmark", on_cuda),
        (
            recipe.offload != "none",
            f"offload {recipe.offload}",
            on_cuda and f"{on_cuda}: a CPU has one memory",
        ),
    ]
    lacking = [f"{what} {why}" for asked, what, why in needs if asked and why]
    return lacking[0] if lacking else unsupported_reason(recipe.attention, machine)


def carry_out(pipeline: VideoPipeline, recipe: Recipe) -> None:
    """Change a pipeline, whose parts lie on their device, into what the recipe says; what lies on
    meta is left.  A draft is changed as the denoiser is, but for the cache.

    Raises ValueError with the reason where the denoiser's class does not take the cache, or the
    VAE's is not compiled."""
    pipeline.guidance = recipe.guidance
    small = [pipeline.draft.denoiser] if pipeline.draft is not None else []
    for denoiser in (pipeline.denoiser, *small):
        if _is_built(denoiser):
            _change(denoiser, recipe)
    if recipe.cache is not None and _is_built(pipeline.denoiser):
        apply_cache(pipeline.denoiser, recipe.cache)
    if recipe.compile_vae != "none" and _is_built(pipeline.vae):
        _compile_vae(pipeline.vae)


def _is_built(module: nn.Module) -> bool:
    return not any(p.is_meta for p in module.parameters())


def _change(denoiser: nn.Module, recipe: Recipe) -> None:
    if recipe.quantise != "none":
        quantise(denoiser, recipe.quantise)
    if recipe.sparsity != "none":
        make_sparse(denoiser)
    if recipe.offload == "weights":
        _offload(denoiser)
    if recipe.compile == "regional":
        for block in blocks_of(denoiser):
            block.compile()
    elif recipe.compile != "none":
        denoiser.compile(mode="max-autotune" if recipe.compile == "autotune" else None)
        denoiser.graphs = recipe.compile == "autotune"
    if recipe.cuda_graph:
        graph_forward(denoiser, capture_graph)


def _compile_vae(vae: nn.Module) -> None:
    if not isinstance(vae, VideoVAE):
        raise ValueError("compile_vae full: own VAEs; public ones keep frames between Python calls")
    vae.encoder.compile()
    vae.decoder.compile()


@contextlib.contextmanager
def under(recipe: Recipe) -> Iterator[None]:
    """Settings of the process that calls of this recipe run under."""
    with sdpa_backend(recipe.attention), precision(recipe.dtype):
        yield


def held(call: Callable[..., Any], recipe: Recipe) -> Callable[..., Any]:
    """The call held to its recipe's settings: points in turns may differ in them.  `__wrapped__` is
    the call without."""

    def in_place(*args: Any) -> Any:
        saved = (
            torch.autograd.graph.save_on_cpu(pin_memory=True)
            if recipe.offload == "activations"
            else contextlib.nullcontext()
        )
        with under(recipe), saved:
            return call(*args)

    @functools.wraps(call)
    def called(*args: Any) -> Any:
        return benchmarked(in_place, *args) if recipe.cudnn_benchmark else in_place(*args)

    return called


def is_compiled(recipe: Recipe, stage: str) -> bool:
    """Does a stage's first call compile?"""
    return recipe.compile != "none" or (
        recipe.compile_vae != "none" and PARTS_OF_STAGE.get(stage) == "vae"
    )


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """What is compiled within is compiled cold, in folders of its own, and forgotten at the end: so
    each point's compile time is its own, and no recipe runs into the recompilation limit of the one
    before.

    Inductor says once where Triton keeps its kernels and leaves that for later, so both folders are
    said here."""
    import torch._inductor.config as inductor

    with tempfile.TemporaryDirectory(prefix="ldt-bench-", ignore_cleanup_errors=True) as folder:
        folders = {
            "TORCHINDUCTOR_CACHE_DIR": folder,
            "TRITON_CACHE_DIR": os.path.join(folder, "triton"),
        }
        before = {name: os.environ.get(name) for name in folders}
        os.environ.update(folders)
        disabled, inductor.force_disable_caches = inductor.force_disable_caches, True
        try:
            yield
        finally:
            torch._dynamo.reset()
            inductor.force_disable_caches = disabled
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def can_be_captured(recipe: Recipe, stage: str) -> bool:
    """Could the stage be one CUDA graph?  A trajectory's sampler reads numbers back, offloading
    copies on streams of its own, what autotune compiled is graphs already, and so is a graphed
    denoiser; another thread's work is not captured, and a group's ranks would capture apart."""
    return (
        stage != "trajectory"
        and recipe.offload == "none"
        and recipe.compile != "autotune"
        and not recipe.cuda_graph
        and not recipe.cudnn_benchmark
        and not recipe.on_several_ranks
    )


def around(*recipes: Recipe) -> contextlib.AbstractContextManager[None]:
    """What the measurement of points under these recipes runs within."""
    return compiling() if any(recipe.compiles for recipe in recipes) else contextlib.nullcontext()


def _offload(denoiser: nn.Module) -> None:
    from diffusers.hooks import apply_group_offloading

    device = next(denoiser.parameters()).device
    apply_group_offloading(
        denoiser,
        onload_device=device,
        offload_device=torch.device("cpu"),
        offload_type="block_level",
        num_blocks_per_group=1,
        use_stream=True,
    )


@contextlib.contextmanager
def precision(dtype: str) -> Iterator[None]:
    """float32 products of this dtype: by TensorFloat-32 for tf32, else as the process has them."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    if dtype == "tf32":
        matmul.allow_tf32 = cudnn.allow_tf32 = True
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
