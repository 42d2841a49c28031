"""What a device reaches, as the cost model takes it."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ceilings:
    """Measured rates of a device, for one dtype and attention backend."""

    gemm_flops_per_s: float
    attention_flops_per_s: float
    conv_flops_per_s: float
    copy_bytes_per_s: float
    """Bandwidth of copies far larger than any cache."""
    gemm_size: tuple[int, int, int] | None = None
    """m, n, k of the probe that reached it; None: of a large one."""
    attention_size: tuple[int, int, int] | None = None
    """Queries, keys, head size."""
    conv_size: tuple[int, int, int] | None = None
    """Positions, channels, channels x taps."""
    small_conv_flops_per_s: float | None = None
    """Rate of PyTorch's im2col kernel on a CPU; None on a device that has no such kernel."""
    activation_bytes_per_s: float | None = None
    """GELU; None: as fast as a copy."""
    fresh_bytes_per_s: float | None = None
    """Writing an array that was not mapped yet; None: the allocator keeps its memory, as CUDA's
    does."""
    ladder: tuple[tuple[float, float], ...] = ()
    """(bytes moved, bytes/s) of copies, small to large; empty: copy_bytes_per_s for all."""

    def bandwidth(self, moved: np.ndarray) -> np.ndarray:
        """Bytes/s of operators that move so many bytes, between the rungs in proportion
        (log-log)."""
        if not self.ladder:
            return np.full_like(moved, self.copy_bytes_per_s, dtype=float)
        sizes, rates = np.log(np.array(self.ladder)).T
        return np.exp(np.interp(np.log(np.maximum(moved, 1.0)), sizes, rates))
