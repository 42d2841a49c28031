"""Memory of the device: what is free, what a point holds, how high a stage went.  Bytes."""

import contextlib
import os
import re
from pathlib import Path

import torch
from torch.utils._pytree import tree_leaves

from bench.results.readings import Memory, StageMemory

HOST, PROCESS = Path("/proc/meminfo"), Path("/proc/self/status")


def read_bytes(file: Path, key: str) -> int | None:
    """A line like `MemAvailable:  123 kB` of HOST or PROCESS (proc(5)) in bytes; None where the
    system has no such line."""
    try:
        found = re.search(rf"^{key}:\s+(\d+) kB$", file.read_text(), flags=re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def free_memory(device: torch.device) -> int | None:
    """Bytes that could still be taken; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return read_bytes(HOST, "MemAvailable")


def room(device: torch.device) -> int | None:
    """As free_memory, with what the allocator only keeps for later given back first."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return free_memory(device)


def allocated(device: torch.device) -> int:
    """Bytes of tensors on a card; 0 on a CPU, which keeps no account."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def reset_peak(device: torch.device) -> None:
    """Let the peak start from what is held now."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return
    # Where it cannot be reset, the peak stays the highest of the process so far.
    with contextlib.suppress(OSError):
        Path(f"/proc/{os.getpid()}/clear_refs").write_text("5")  # resets VmHWM (proc(5))


def bytes_of(inputs: object) -> int:
    """Of the tensors in a nest of containers; a view adds nothing to its storage."""
    storages = [t.untyped_storage() for t in tree_leaves(inputs) if isinstance(t, torch.Tensor)]
    return sum({s.data_ptr(): s.nbytes() for s in storages}.values())


def resting(device: torch.device, others: int, counted: int) -> int:
    """Bytes of weights and inputs as they lie: quantised ones and those in host memory take less
    than is counted."""
    if device.type != "cuda":
        return counted
    return min(counted, allocated(device) - others)


def stage_memory(
    device: torch.device, others: int, at_rest: int, *, alone: bool = True
) -> StageMemory:
    """Peaks since they were last reset.  others: bytes allocated that are none of the point's;
    at_rest: its weights and inputs; alone: no other point is resident, so that the allocator's and
    the device's use say something of this one."""
    peak = torch.cuda.max_memory_allocated(device) - others
    reserved = used = None
    if alone:
        reserved = torch.cuda.max_memory_reserved(device)
        with contextlib.suppress(RuntimeError):
            free, total = torch.cuda.mem_get_info(device)
            used = total - free
    return StageMemory(
        peak_allocated=peak,
        peak_reserved=reserved,
        device_used=used,
        activations=max(peak - at_rest, 0),
    )


def memory_of(
    device: torch.device, weights: int, inputs: int, peaks: dict[str, StageMemory]
) -> Memory:
    """A point's memory from the peaks of its stages; on a CPU from the peak of the process."""
    if device.type == "cuda":
        return Memory(
            weights=weights,
            inputs=inputs,
            peak_allocated=max(p.peak_allocated for p in peaks.values()),
            peak_reserved=max(p.peak_reserved or 0 for p in peaks.values()),
            by_stage=peaks,
            reason=None,
        )
    peak = read_bytes(PROCESS, "VmHWM")
    return Memory(
        weights=weights,
        inputs=inputs,
        peak_allocated=peak,
        peak_reserved=None,
        reason="a CPU has no caching allocator" if peak else "no /proc/self/status on this system",
    )
