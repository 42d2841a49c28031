"""Which kernel computed attention, whatever the recipe asked for: PyTorch's choice depends on its
version, on cuDNN's, and on the shape.

A stage is run once more after its samples, and each attention call of a new shape in it is
profiled.  It stops where the largest has come a third time, so that a step of a minute costs three
blocks.  The family is read from the kernel's name; where a container forbids CUPTI, from the
operator's; failing that, from what SDPA says it would choose.  Nothing here fails a point: its
times are worth more.
"""

import contextlib
import dataclasses
import functools
import inspect
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

from bench.core.specs.point import Point
from bench.measure.attention.backends import note_taken, taken
from bench.measure.attention.watching import Enough, Sightings, watching
from bench.measure.recipes.apply import under
from bench.measure.recipes.graphs import ungraphed
from bench.results.records import AttentionRan
from models.dit.windowed import WindowPlan

STAGES = ("denoise_step", "trajectory", "train_step", "decode_token", "prefill", "text_encode")
ENOUGH = 3  # sightings of the largest call: text refiners of public models hold two blocks
# A cache that was half filled would not be the same again.
LEAVE_WHOLE = ("decode_token", "prefill")

KERNELS = (  # in a kernel's name; the first that matches
    ("sage", r"qk_int_sv_|\b_attn_fwd\b"),  # SageAttention 2 and 1
    ("flash3", r"FlashAttnFwdSm\d+"),
    (
        "cudnn",
        r"cudnn|native_sdpa|sdpa_sm\d+_",
    ),  # cudnn_generated_fort_native_sdpa_sm90_flash_fprop_...
    ("flash", r"flash_fwd|pytorch_flash::"),
    ("efficient", r"fmha_cutlassF|PyTorchMemEffAttention"),
    ("flex", r"flex_attention"),
    ("math", r"softmax"),
)
OPERATORS = (  # in an operator's name, where no kernel was seen
    ("cudnn", r"_scaled_dot_product_cudnn_attention"),
    ("flash", r"_scaled_dot_product_flash_attention"),
    ("efficient", r"_scaled_dot_product_efficient_attention"),
    ("math", r"_scaled_dot_product_attention_math"),
    ("onednn", r"mkldnn::_linear_pointwise"),
)
CHOICES = {
    int(SDPBackend.MATH): "math",
    int(SDPBackend.FLASH_ATTENTION): "flash",
    int(SDPBackend.EFFICIENT_ATTENTION): "efficient",
    int(SDPBackend.CUDNN_ATTENTION): "cudnn",
}

# CUPTI taken down and set up again crashes beside CUDA graphs (torch/profiler/profiler.py says
# which), and launches are
# replayed as graphs in the same process.
KEEP_CUPTI = {"TEARDOWN_CUPTI": "0", "DISABLE_CUPTI_LAZY_REINIT": "1"}


@contextlib.contextmanager
def as_python(compiled: bool) -> Iterator[None]:
    """Calls within run operator by operator, whatever was captured as a graph, or compiled.

    compiled: False spares the import of the compiler, which takes seconds."""
    with (
        torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext(),
        ungraphed(),
    ):
        yield


@dataclass(frozen=True)
class Ran:
    """One attention call, as profiled."""

    family: str
    kernel: str | None
    reason: str | None


def attention_ran(
    point: Point, calls: dict[str, Callable[..., Any]], device: torch.device
) -> AttentionRan | None:
    """Run a stage of the point's built calls once more, in part -> what its attention ran by; None
    where none was seen."""
    stage = next((stage for stage in STAGES if stage in point.stages), None)
    if stage is None:
        return None
    call = calls[stage]
    recipe = getattr(call, "recipe", point.recipe)  # with the backend that `fastest` chose
    # Hooks that fetch weights end only with the call.
    whole = stage in LEAVE_WHOLE or recipe.offload != "none"
    chosen_by = {"auto": "torch", "fastest": "measured"}.get(point.recipe.attention, "recipe")
    try:
        with under(recipe):
            sightings, seen = _look(inspect.unwrap(call), device, whole, recipe.compiles)
    except Exception as error:  # also memory that runs out
        return AttentionRan(
            backend="unknown", chosen_by=chosen_by, kernel=None, reason=_not_seen(error)
        )
    if not seen:
        return None
    ran = seen[sightings.largest]
    others = {shape: other.family for shape, other in seen.items() if other.family != ran.family}
    beside = [
        f"{family} for keys {'x'.join(map(str, keys))}" for (_, keys, _), family in others.items()
    ]
    uncompiled = "seen in an uncompiled run" if recipe.compile != "none" else None
    reasons = [
        ran.reason,
        uncompiled,
        f"beside it {', '.join(beside)}" if beside else None,
        getattr(call, "reason", None),
    ]
    return AttentionRan(
        backend=ran.family,
        chosen_by=chosen_by,
        kernel=ran.kernel,
        candidates_s=getattr(call, "candidates_s", {}),
        reason="; ".join(filter(None, reasons)) or None,
    )


def family_ran(call: Callable[[], Any], device: torch.device) -> tuple[str | None, str | None]:
    """(the family of kernels of a call's largest attention, None); where none was seen (None, the
    reason)."""
    try:
        sightings, seen = _look(call, device, whole=True, compiled=False)
    except Exception as error:  # as in attention_ran
        return None, _not_seen(error)
    return (seen[sightings.largest].family, None) if seen else (None, "no attention call was seen")


def _not_seen(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [""])[0]
    return f"not seen: {type(error).__name__}: {line}"


def _look(
    call: Callable[..., Any], device: torch.device, whole: bool, compiled: bool
) -> tuple[Sightings, dict[tuple, Ran]]:
    sightings, seen = Sightings(), {}

    def see(
        attend: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, *args: Any, **given: Any
    ) -> Tensor:
        shape = sightings.add(q, k)
        call = functools.partial(attend, q, k, v, *args, **given)
        if args and isinstance(args[0], WindowPlan):
            call = functools.partial(_by_flex, call)
        if shape in seen:
            out = call()
        else:
            out, seen[shape] = profiled(call, (q, k, v), device)
        if not whole and shape == sightings.largest and sightings.counts[shape] >= ENOUGH:
            raise Enough
        return out

    with as_python(compiled), watching(see), contextlib.suppress(Enough):
        call()
    return sightings, seen


def _by_flex(attend: Callable[[], Tensor]) -> Tensor:
    with torch.compiler.set_stance("default"):  # uncompiled it writes all scores out
        out = attend()
    note_taken("flex")
    return out


def profiled(
    attend: Callable[[], Tensor], qkv: tuple[Tensor, Tensor, Tensor], device: torch.device
) -> tuple[Tensor, Ran]:
    """Run an attention call under the profiler -> its output, and what ran."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
        os.environ.update(KEEP_CUPTI)
    out, reason, events = None, None, []
    note_taken(None)
    try:
        with torch.profiler.profile(activities=kinds) as profile:
            out = attend()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        events = list(profile.events() or [])
    except RuntimeError as error:
        if out is None:  # the call's own error, or the profiler did not start
            out = attend()
        reason = f"no profile: {(str(error).strip().splitlines() or [type(error).__name__])[0]}"
    ran = what_ran(events, reason, qkv, device)
    return out, ran if taken() is None else dataclasses.replace(ran, family=taken())


def what_ran(
    events: list[Any], reason: str | None, qkv: tuple[Tensor, Tensor, Tensor], device: torch.device
) -> Ran:
    """The family of kernels among a profile's events, and the longest kernel of that family."""
    on_device = [e for e in events if e.device_type == torch.autograd.DeviceType.CUDA]
    known = [(family_of(e.name, KERNELS), e) for e in on_device]
    fused = [(family, e) for family, e in known if family not in (None, "math")] or [
        pair for pair in known if pair[0]
    ]
    operators = [family for e in events if (family := family_of(e.name, OPERATORS))]
    if fused:
        family, kernel = max(fused, key=lambda pair: pair[1].time_range.elapsed_us())
        if family == "math":  # its products take longer than its softmax
            kernel = max(on_device, key=lambda e: e.time_range.elapsed_us())
        return Ran(family, kernel.name, None)
    if device.type == "cpu":
        reason = "no kernel has a name on a CPU" if reason is None else reason
    elif reason is None:
        reason = (
            "the profiler saw no attention kernel"
            if on_device
            else "the profiler saw no kernel: is CUPTI permitted?"
        )
    return Ran(operators[0] if operators else _choice(qkv), None, reason)


def family_of(name: str, patterns: tuple[tuple[str, str], ...]) -> str | None:
    """'void pytorch_flash::flash_fwd_kernel<...>' -> 'flash'; None for what is no attention."""
    return next((family for family, pattern in patterns if re.search(pattern, name)), None)


def _choice(qkv: tuple[Tensor, Tensor, Tensor]) -> str:
    """What SDPA says it would choose."""
    return CHOICES.get(int(torch._fused_sdp_choice(*qkv)), "unknown")


_NOTED: dict[str, AttentionRan] = {}


def note(point: Point, calls: dict[str, Callable[..., Any]], device: torch.device) -> None:
    """Keep what ran in this process's last measurement of the point, for `noted`."""
    ran = attention_ran(point, calls, device)
    _NOTED.pop(point.subject, None)
    if ran is not None:
        _NOTED[point.subject] = ran


def noted(point: Point) -> AttentionRan | None:
    """What `note` kept of the point; whichever of its stages were called, they attend alike."""
    return _NOTED.get(point.subject)
