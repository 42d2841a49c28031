"""Is a call bound by the host that launches its kernels?  Captured once as a CUDA graph and
replayed, nothing waits for a host: what the replay saves is what the host cost.

This comes after all samples, since a capture that fails may leave the CUDA context broken; and it
never raises, since what was measured before is worth more.
"""

from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from bench.measure.timing.clock import Clock
from bench.measure.timing.sampling import LONGEST_REPLAYED_S, REPLAY_S
from bench.results.readings import Launch

HOST_BOUND = 0.1  # share of a call that a graph replay saves, over which the host bounds it
MOST_REPLAYS, LEAST_REPLAYS = 20, 2
MOST_OF_FREE_MEMORY = 0.8  # that a graph may take: it keeps a pool of its own

Capture = Callable[[Callable[[], Any], torch.device], Callable[[], Any]]


def capture_graph(call: Callable[[], Any], device: torch.device) -> Callable[[], Any]:
    """The call as a CUDA graph -> its replay.  Raises RuntimeError where an operator waits for the
    device, and others."""
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):  # capture wants a warm-up on another stream
        call()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):  # empties the allocator's cache first
        call()
    return graph.replay


def replay_seconds(
    call: Callable[[], Any],
    device: torch.device,
    clock: Clock,
    replays: int,
    capture: Capture = capture_graph,
) -> tuple[float | None, str | None]:
    """Median seconds of the captured call over some replays, one before them uncounted; None and
    why where it cannot be captured."""
    if device.type != "cuda":
        return None, "no CUDA graphs on a CPU"
    try:
        replay = capture(call, device)
        clock.time(replay)
        return median(clock.time(replay) for _ in range(replays)), None
    except Exception as error:  # also memory that runs out, and what a compiler raises
        return (
            None,
            (
                "not captured as a CUDA graph:"
                f" {(str(error).strip().splitlines() or [type(error).__name__])[0]}"
            ),
        )


def time_launch(
    call: Callable[[], Any],
    device: torch.device,
    clock: Clock,
    eager_s: float,
    *,
    needed: int | None = None,
    free: Callable[[], int | None] = lambda: None,
    capture: Capture = capture_graph,
) -> Launch:
    """The call's replay beside its median.  needed: bytes that the call allocates; free(): bytes
    there are for it."""
    if device.type == "cuda" and eager_s > LONGEST_REPLAYED_S:
        return _launch(
            eager_s,
            None,
            f"over {LONGEST_REPLAYED_S:g} s: not replayed, launches are a small share of so "
            "long a call",
        )
    if device.type == "cuda" and needed is not None:
        try:
            available = free()
        except RuntimeError as error:  # an earlier capture broke the context
            return _launch(
                eager_s, None, f"not captured as a CUDA graph: {str(error).strip().splitlines()[0]}"
            )
        if available is not None and needed > MOST_OF_FREE_MEMORY * available:
            return _launch(
                eager_s,
                None,
                f"not captured as a CUDA graph: its own {needed / 1e9:.3g} GB would crowd the "
                f"{available / 1e9:.3g} GB that are free",
            )
    replays = max(LEAST_REPLAYS, min(MOST_REPLAYS, int(REPLAY_S / eager_s)))
    return _launch(eager_s, *replay_seconds(call, device, clock, replays, capture))


def _launch(eager_s: float, replay_s: float | None, reason: str | None) -> Launch:
    if replay_s is None:
        return Launch(
            host_bound=None, eager_s=eager_s, replay_s=None, gap_s=None, gap=None, reason=reason
        )
    gap_s = eager_s - replay_s
    return Launch(
        host_bound=is_host_bound(eager_s, replay_s),
        eager_s=eager_s,
        replay_s=replay_s,
        gap_s=gap_s,
        gap=gap_s / eager_s,
        reason=None,
    )


def is_host_bound(eager_s: float, replay_s: float) -> bool:
    """Does the host take longer to launch the call's kernels than the device to run them?"""
    return 1 - replay_s / eager_s > HOST_BOUND
