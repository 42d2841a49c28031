"""One fixed matrix product, timed before and after every point: what it does over a run is the
machine's doing alone."""

from statistics import median

import torch
import torch.nn.functional as F

from bench.measure.timing.clock import Clock

SIZES = {
    "cpu": (768, torch.float32),
    "cuda": (8192, torch.bfloat16),
}  # 5 to 20 ms on two CPU cores, 1.5 ms on an H100
CALLS = 7


class Sentinel:
    """Operands stay on the device: 0.4 GB of an H100's 80, a few MB on a CPU."""

    def __init__(self, device: torch.device, clock: Clock):
        size, dtype = SIZES[device.type]
        generator = torch.Generator(device).manual_seed(0)
        self._a, self._b = torch.randn(
            2, size, size, device=device, dtype=dtype, generator=generator
        ).unbind(0)
        self._clock = clock

    @torch.inference_mode()
    def read(self) -> float:
        """Median seconds of a few calls, the first left out."""
        times = [self._clock.time(lambda: F.linear(self._a, self._b)) for _ in range(CALLS + 1)]
        return median(times[1:])
