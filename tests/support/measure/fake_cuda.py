"""A CUDA card that is a fake: tensors on it have shapes, dtypes and a device, and no values.

`card()` gives PyTorch such a card for the time of a `with`, on a machine that has none, whatever
build PyTorch is.  An operator whose tensors lie on two devices raises, and so does what waits for a
value of the card (`item`, `nonzero`, a mask as an index): the host would wait for the device
there.  Tensors of the host stay real.
"""

import contextlib
import ctypes
import importlib
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch._dynamo.trace_rules
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

# Before a card is said to be there: Triton and torchao, which diffusers looks for, ask its driver
# as they are imported;
# dynamo's rules are for the real functions, and it refuses two names for one.
importlib.import_module("diffusers.loaders.peft")
torch._dynamo.trace_rules.get_torch_obj_rule_map()
SDPA = F.scaled_dot_product_attention  # itself: the harness puts others in the place of the name
CUDA = torch.device(
    "cuda", 0
)  # as choose_device gives it; without an index some operators ask a driver
CUDA_SLOT, META_SLOT = 1, 14  # c10::DeviceType
GUARDS = "_ZN3c104impl26device_guard_impl_registryE"  # c10::impl::device_guard_impl_registry


class OnCard(FakeTensorMode):
    """Fake are the tensors on CUDA, and what is made from them; what has to do with the host alone
    runs."""

    avoid_device_init = True  # also while torch.cuda.is_available says there is a card

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.ops.aten._pin_memory.default:
            return args[0].clone()
        if kwargs.get("pin_memory"):  # no driver could pin it
            kwargs["pin_memory"] = False
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        wanted = next((d for d in tree_leaves((args, kwargs)) if isinstance(d, torch.device)), None)
        on_card = any(isinstance(t, FakeTensor) for t in tensors) or (
            wanted is not None and wanted.type == "cuda"
        )
        if not on_card:
            return func(*args, **kwargs)
        # Of an operator without fake tensors PyTorch would compute a constant, on the card.
        args, kwargs = tree_map_only(Tensor, self._fake, (args, kwargs))
        return super().__torch_dispatch__(func, types, args, kwargs)

    def _fake(self, tensor: Tensor) -> Tensor:
        return (
            tensor if isinstance(tensor, FakeTensor) or tensor.is_meta else self.from_tensor(tensor)
        )


class Generator(torch.Generator):
    """A generator of any device; the card's has no state of its own."""

    def __new__(cls, device: Any = "cpu") -> "Generator":
        made = super().__new__(cls)
        made.of = torch.device(device)
        return made

    @property
    def device(self) -> torch.device:
        """Of the numbers it is for."""
        return self.of


class AsACardWould(TorchFunctionMode):
    """Generators are of the device they draw for, and attention asks no driver for its kernel."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is SDPA:
            return _attention(*args, **kwargs)
        out = func(*args, **kwargs)
        of = getattr(kwargs.get("generator"), "of", None)
        if of is not None and isinstance(out, Tensor) and out.device.type not in (of.type, "meta"):
            raise RuntimeError(f"{func}: a generator of {of} for a tensor on {out.device}")
        return out


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """SDPA written out, with what every kernel of it asks.  (..., N, E), (..., L, E), (..., L, E)
    -> (..., N, E)."""
    if not query.dtype == key.dtype == value.dtype:
        raise RuntimeError(
            f"SDPA: query, key and value of {query.dtype}, {key.dtype}, {value.dtype}"
        )
    if enable_gqa:
        key, value = (
            x.repeat_interleave(query.shape[-3] // x.shape[-3], dim=-3) for x in (key, value)
        )
    scores = query @ key.transpose(-2, -1)
    if attn_mask is not None:
        scores = (
            scores.masked_fill(~attn_mask, -torch.inf)
            if attn_mask.dtype == torch.bool
            else scores + attn_mask
        )
    return scores.softmax(-1).to(value.dtype) @ value


def _conv_backend(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, *args: Any, **settings: Any
) -> Any:
    """cuDNN, without its driver.  Shape functions of convolutions look at the input's device alone;
    this at all of them."""
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None and (tensor.device, tensor.dtype) != (input.device, input.dtype):
            raise RuntimeError(
                f"convolution: input of {input.dtype} on {input.device}, {name} of {tensor.dtype}"
                f" on {tensor.device}: not the same device and dtype"
            )
    return torch._C._ConvBackend.Cudnn


class Event:
    """Time on the card goes on by a millisecond with every event."""

    now_ms = 0.0

    def __init__(self, **settings: Any) -> None:
        self.at = 0.0

    def record(self, stream: Any = None) -> None:
        Event.now_ms += 1.0
        self.at = Event.now_ms

    def synchronize(self) -> None: ...

    def query(self) -> bool:
        return True

    def wait(self, stream: Any = None) -> None: ...

    def elapsed_time(self, end: "Event") -> float:
        return end.at - self.at


class Stream:
    """Runs at once what is put on it."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        self.device, self.cuda_stream = CUDA, 0

    def wait_stream(self, other: "Stream") -> None: ...

    def wait_event(self, event: Event) -> None: ...

    def record_event(self, event: Event | None = None) -> Event:
        return event or Event()

    def synchronize(self) -> None: ...

    def query(self) -> bool:
        return True

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *exc: object) -> None: ...


class Graph:
    """Captures nothing, replays nothing."""

    def replay(self) -> None: ...

    def reset(self) -> None: ...


def properties(device: Any = None) -> types.SimpleNamespace:
    """An H100's, as far as anything asks."""
    return types.SimpleNamespace(
        name="NVIDIA H100 80GB HBM3",
        uuid="1234",
        total_memory=80 * 2**30,
        major=9,
        minor=0,
        multi_processor_count=132,
        warp_size=32,
        max_threads_per_multi_processor=2048,
        regs_per_multiprocessor=65536,
        L2_cache_size=50 * 2**20,
        shared_memory_per_block_optin=232448,
        shared_memory_per_block=49152,
        is_integrated=False,
        gcnArchName="",
    )


def _of_torch_cuda(free: int) -> dict[str, Callable[..., Any]]:
    """What stands in torch.cuda's place.  free: bytes that the card says it has."""
    nothing = lambda *args, **settings: None  # noqa: E731
    return {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "_lazy_init": nothing,
        "init": nothing,
        "current_device": lambda: 0,
        "device_count": lambda: 1,
        "set_device": nothing,
        "synchronize": nothing,
        "get_device_properties": properties,
        "get_device_capability": lambda device=None: (9, 0),
        "get_device_name": lambda device=None: properties().name,
        "is_bf16_supported": lambda *a, **k: True,
        "memory_allocated": lambda device=None: 2**28,
        "memory_reserved": lambda device=None: 2**29,
        "max_memory_allocated": lambda device=None: 2**30,
        "max_memory_reserved": lambda device=None: 2**31,
        "mem_get_info": lambda device=None: (free, 80 * 2**30),
        "memory_stats": lambda device=None: {},
        "empty_cache": nothing,
        "reset_peak_memory_stats": nothing,
        "_sleep": nothing,
        "Event": Event,
        "Stream": Stream,
        "CUDAGraph": Graph,
        "current_stream": lambda device=None: Stream(),
        "default_stream": lambda device=None: Stream(),
        "stream": lambda stream: stream or Stream(),
        "graph": lambda graph, **settings: contextlib.nullcontext(),
        "set_stream": nothing,
        "is_current_stream_capturing": lambda: False,
        "manual_seed": nothing,
        "manual_seed_all": nothing,
        "get_rng_state": lambda device=None: torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": nothing,
    }


@contextlib.contextmanager
def card(free: int = 79 * 2**30) -> Iterator[torch.device]:
    """PyTorch as if a CUDA card were here -> its device.  What caches tensors of the card is
    emptied before and after."""
    from torch._dynamo.trace_rules import get_torch_obj_rule_map
    from torch._subclasses import fake_tensor

    get_torch_obj_rule_map()  # kept for good: it must hold torch's own functions, and not these
    with contextlib.ExitStack() as stack:
        stack.enter_context(_guard())
        for name, value in _of_torch_cuda(free).items():
            stack.enter_context(patch.object(torch.cuda, name, value, create=True))
        stack.enter_context(patch.object(torch, "Generator", Generator))
        stack.enter_context(patch.object(torch.version, "cuda", torch.version.cuda or "13.0"))
        if hasattr(fake_tensor, "init_gpu_context"):
            stack.enter_context(patch.object(fake_tensor, "init_gpu_context", lambda *a: None))
        if hasattr(fake_tensor, "init_cuda_context"):
            stack.enter_context(patch.object(fake_tensor, "init_cuda_context", lambda *a: None))
        stack.enter_context(patch.object(nn.Module, "compile", _compile_without_inductor))
        stack.enter_context(patch.object(Tensor, "backward", _no_backward))
        stack.enter_context(patch.object(torch._C, "_select_conv_backend", _conv_backend))
        stack.enter_context(patch.object(nn.Module, "_apply", _apply_anew))
        for (
            operator
        ) in torch._ops._higher_order_ops.values():  # they know a mode by its exact class
            table = operator.python_key_table
            if FakeTensorMode in table:
                table.setdefault(OnCard, table[FakeTensorMode])
        stack.callback(_forget)
        _forget()
        stack.enter_context(AsACardWould())
        stack.enter_context(OnCard())
        yield CUDA


def _forget() -> None:
    """Empty what keeps tensors between calls: those of one card are nothing to the next."""
    from models.dit import windowed as windowed_attention

    for name in ("_block_mask", "_flex", "can_compile"):
        getattr(getattr(windowed_attention, name, None), "cache_clear", lambda: None)()
    torch._dynamo.reset()


def _apply_anew(
    module: nn.Module, fn: Callable[[Tensor], Tensor], recurse: bool = True
) -> nn.Module:
    """Module.to and its kin: a fake tensor takes no other's place, so each parameter is made
    anew."""
    for child in module.children() if recurse else ():
        child._apply(fn)
    for name, p in module._parameters.items():
        if p is not None:
            module._parameters[name] = nn.Parameter(fn(p), requires_grad=p.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = fn(buffer)
    return module


def _no_backward(loss: Tensor, *args: Any, **settings: Any) -> None:
    """Autograd's engine asks the driver for a stream before its first operator; what stands before
    it is looked at."""
    assert loss.requires_grad, "a loss without a graph"
    assert loss.device == CUDA, f"the loss is on {loss.device}"


_module_compile = nn.Module.compile


def _compile_without_inductor(module: nn.Module, **settings: Any) -> None:
    """Dynamo traces it; Inductor's Triton kernels would want a card."""
    settings.pop("mode", None)
    _module_compile(module, backend="eager", **settings)


@contextlib.contextmanager
def _guard() -> Iterator[None]:
    """The guard of CUDA devices asks the driver, and a build without CUDA has none: meta's, which
    does nothing, takes its place for the time."""
    library = ctypes.CDLL(str(next((Path(torch.__file__).parent / "lib").glob("libc10.*"))))
    slots = (ctypes.c_void_p * (META_SLOT + 1)).in_dll(library, GUARDS)
    before = slots[CUDA_SLOT]
    slots[CUDA_SLOT] = slots[META_SLOT]
    try:
        yield
    finally:
        slots[CUDA_SLOT] = before
