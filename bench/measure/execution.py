"""How a recipe is carried out on a built pipeline: what it needs of the machine, what it does to the denoiser, and the
settings that its calls run under.  One place, so that a recipe means the same in a suite, in turns and in a check.

What each needs is said before anything is built: a recipe that cannot run is skipped with that reason.
"""

import contextlib
import importlib.util
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.core.spec import Recipe
from bench.measure.sdpa import sdpa_backend, unsupported_reason
from models.caching import apply_cache
from models.pipeline import VideoPipeline

IN_A_BLOCK = re.compile(r"(^|\.)\w*blocks\.\d+\.")      # own and public denoisers keep their blocks in lists of that name
PACKAGES = ("torchao", "triton", "diffusers")
# Compute capability: TF32 and 2:4 came with Ampere, FP8 products with Ada (CUDA C++ programming guide, tensor cores).
AMPERE, ADA = (8, 0), (8, 9)


@dataclass(frozen=True)
class Machine:
    """What a recipe may need."""

    kind: str
    """cpu or cuda."""
    capability: tuple[int, int] | None
    """Of the CUDA device."""
    packages: frozenset[str]
    """Of those that recipes need, the ones that are installed."""
    compiler: bool
    """A C++ compiler, which torch.compile needs on a CPU."""


def this_machine(device: torch.device) -> Machine:
    """What is here."""
    return Machine(
        kind=device.type, capability=torch.cuda.get_device_capability(device) if device.type == "cuda" else None,
        packages=frozenset(name for name in PACKAGES if importlib.util.find_spec(name) is not None),
        compiler=any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "c++", "clang++")))


def unsupported(recipe: Recipe, machine: Machine) -> str | None:
    """Why a recipe cannot run on a machine, in one line; None where it can."""
    on_cuda = None if machine.kind == "cuda" else "needs CUDA"
    by_torchao = ("fp8", "int8-weight", "int8-dynamic")
    needs = [
        (recipe.dtype == "tf32", f"dtype {recipe.dtype}", _capability(machine, AMPERE)),
        (recipe.dtype == "fp16", "dtype fp16", on_cuda and f"{on_cuda}: a CPU's float16 convolutions take minutes"),
        (recipe.quantise == "fp8", "quantise fp8", _capability(machine, ADA)),
        (recipe.quantise in by_torchao, f"quantise {recipe.quantise}", _package(machine, "torchao", "quantise")),
        (recipe.sparsity != "none", f"sparsity {recipe.sparsity}", _capability(machine, AMPERE)),
        (recipe.compile == "autotune", "compile autotune", on_cuda and f"{on_cuda}, for its graphs"),
        (recipe.compile != "none", f"compile {recipe.compile}", _inductor(machine)),
        (recipe.offload != "none", f"offload {recipe.offload}", on_cuda and f"{on_cuda}: a CPU has one memory"),
    ]
    lacking = [f"{what} {why}" for asked, what, why in needs if asked and why]
    return lacking[0] if lacking else unsupported_reason(recipe.attention, torch.device(machine.kind))


def _capability(machine: Machine, least: tuple[int, int]) -> str | None:
    wanted = f"needs CUDA with compute capability {least[0]}.{least[1]}"
    if machine.capability is None:
        return wanted
    return None if machine.capability >= least else f"{wanted}; this device has {'.'.join(map(str, machine.capability))}"


def _package(machine: Machine, name: str, extra: str) -> str | None:
    return None if name in machine.packages else f"needs {name} (pip install 'ldt-bench[{extra}]')"


def _inductor(machine: Machine) -> str | None:
    if machine.kind == "cuda":
        return None if "triton" in machine.packages else "needs triton, which CUDA builds of PyTorch bring"
    return None if machine.compiler else "needs a C++ compiler (g++ or clang++)"


def carry_out(pipeline: VideoPipeline, recipe: Recipe) -> None:
    """Change a pipeline, whose denoiser lies on its device, into what the recipe says; what lies on meta is left.  A
    draft is changed as the denoiser is, but for the cache.

    Raises ValueError with the reason where the denoiser's class does not take the cache."""
    pipeline.guidance = recipe.guidance
    small = [pipeline.draft.denoiser] if pipeline.draft is not None else []
    for denoiser in (pipeline.denoiser, *small):
        if not any(p.is_meta for p in denoiser.parameters()):
            _change(denoiser, recipe)
    if recipe.cache is not None and not any(p.is_meta for p in pipeline.denoiser.parameters()):
        apply_cache(pipeline.denoiser, recipe.cache)


def _change(denoiser: nn.Module, recipe: Recipe) -> None:
    if recipe.quantise != "none":
        _quantise(denoiser, recipe.quantise)
    if recipe.sparsity != "none":
        for linear in _block_linears(denoiser):
            linear.weight = nn.Parameter(_two_of_four(linear.weight), requires_grad=False)
    if recipe.offload == "weights":
        _offload(denoiser)
    if recipe.compile == "regional":
        for block in _blocks(denoiser):
            block.compile()
    elif recipe.compile != "none":
        denoiser.compile(mode="max-autotune" if recipe.compile == "autotune" else None)
        denoiser.graphs = recipe.compile == "autotune"


@contextlib.contextmanager
def under(recipe: Recipe) -> Iterator[None]:
    """Settings of the process that calls of this recipe run under."""
    with sdpa_backend(recipe.attention), precision(recipe.dtype):
        yield


def held(call: Callable[..., Any], recipe: Recipe) -> Callable[..., Any]:
    """The call held to its recipe's settings: points in turns may differ in them."""
    def called(*args: Any) -> Any:
        saved = torch.autograd.graph.save_on_cpu(pin_memory=True) if recipe.offload == "activations" else \
            contextlib.nullcontext()
        with under(recipe), saved:
            return call(*args)
    return called


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """What is compiled within is compiled cold, in a folder of its own, and forgotten at the end: so each point's
    compile time is its own, and no recipe runs into the recompilation limit of the one before."""
    import torch._inductor.config as inductor

    with tempfile.TemporaryDirectory(prefix="ldt-bench-", ignore_cleanup_errors=True) as folder:
        before, os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.environ.get("TORCHINDUCTOR_CACHE_DIR"), folder
        disabled, inductor.force_disable_caches = inductor.force_disable_caches, True
        try:
            yield
        finally:
            torch._dynamo.reset()
            inductor.force_disable_caches = disabled
            os.environ.pop("TORCHINDUCTOR_CACHE_DIR")
            if before is not None:
                os.environ["TORCHINDUCTOR_CACHE_DIR"] = before


def can_be_captured(recipe: Recipe, stage: str) -> bool:
    """Could the stage be one CUDA graph?  A trajectory's sampler reads numbers back, offloading copies on streams of its
    own, and what autotune compiled is graphs already."""
    return stage != "trajectory" and recipe.offload == "none" and recipe.compile != "autotune"


def around(*recipes: Recipe) -> contextlib.AbstractContextManager[None]:
    """What the measurement of points under these recipes runs within."""
    return compiling() if any(recipe.compile != "none" for recipe in recipes) else contextlib.nullcontext()


def weight_bytes(module: nn.Module) -> int:
    """Bytes that a module's weights take as they lie now, quantised ones in their own format; a weight that several
    modules share once."""
    storages: dict[int, int] = {}

    def add(tensor: Tensor) -> None:
        if type(tensor) is not Tensor and type(tensor) is not nn.Parameter and hasattr(tensor, "__tensor_flatten__"):
            for name in tensor.__tensor_flatten__()[0]:
                add(getattr(tensor, name))
        else:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()

    for p in module.parameters():
        add(p.data)
    return sum(storages.values())


def ternary(weight: Tensor) -> Tensor:
    """Each weight as -1, 0 or 1 times the mean magnitude of all (BitNet b1.58, arXiv 2402.17764, eq. 1 to 3)."""
    scale = weight.abs().float().mean().clamp(min=1e-5)
    return ((weight.float() / scale).round().clamp(-1, 1) * scale).to(weight.dtype)


def pruned(weight: Tensor) -> Tensor:
    """The two largest of every four weights along a row; the others are 0 (arXiv 2104.08378)."""
    groups = weight.unflatten(-1, (-1, 4))
    keep = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, groups.abs().topk(2, dim=-1).indices, True)
    return (groups * keep).flatten(-2)


def _two_of_four(weight: Tensor) -> Tensor:
    return torch.sparse.to_sparse_semi_structured(pruned(weight))


def _block_linears(denoiser: nn.Module) -> list[nn.Linear]:
    """Linear layers of the blocks whose sides the formats take (multiples of 16); embeddings and the last layer stay."""
    return [module for name, module in denoiser.named_modules() if _takes(module, name)]


def _takes(module: nn.Module, name: str) -> bool:
    return (isinstance(module, nn.Linear) and IN_A_BLOCK.search(f"{name}.") is not None
            and module.in_features % 16 == 0 and module.out_features % 16 == 0)


def _quantise(denoiser: nn.Module, form: str) -> None:
    if form == "ternary":
        with torch.no_grad():
            for linear in _block_linears(denoiser):
                linear.weight.copy_(ternary(linear.weight))
        return
    from torchao import quantization as ao

    config = {
        "int8-weight": lambda: ao.Int8WeightOnlyConfig(),
        "int8-dynamic": lambda: ao.Int8DynamicActivationInt8WeightConfig(),
        "fp8": lambda: ao.Float8DynamicActivationFloat8WeightConfig(granularity=ao.PerRow()),
    }[form]()
    ao.quantize_(denoiser, config, filter_fn=_takes)


def _blocks(denoiser: nn.Module) -> list[nn.Module]:
    """The repeated blocks, each list's members."""
    return [block for name, module in denoiser.named_modules() if isinstance(module, nn.ModuleList)
            and name.rpartition(".")[2].endswith("blocks") for block in module]


def _offload(denoiser: nn.Module) -> None:
    from diffusers.hooks import apply_group_offloading

    device = next(denoiser.parameters()).device
    apply_group_offloading(denoiser, onload_device=device, offload_device=torch.device("cpu"), offload_type="block_level",
                           num_blocks_per_group=1, use_stream=True)


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
