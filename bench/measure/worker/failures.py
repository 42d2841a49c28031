"""What a failed job says: its outcome, one line, and whether its process can go on."""

from bench.core.errors import UserError
from bench.measure.attention.correctness import WrongNumbers
from bench.measure.errors import OutOfMemory, Unsupported

LIBRARY_OOM = ("CUDA error: out of memory", "STATUS_ALLOC_FAILED", "DEVICE_ALLOCATION_FAILED")
"""In what CUDA itself, cuBLAS and cuDNN say where memory runs out outside PyTorch's allocator."""


def context_survives(error: Exception) -> bool:
    """Is the CUDA context still good after this?  An allocation that PyTorch refused, or a check
    before anything ran, leaves it as it was; of anything else that is not known."""
    refused = (OutOfMemory, Unsupported, WrongNumbers, MemoryError)
    return isinstance(error, refused) or type(error).__name__ == "OutOfMemoryError"


def classify(error: Exception) -> tuple[str, str]:
    """(outcome, one line) of a failed job."""
    line = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, (OutOfMemory, MemoryError)) or type(error).__name__ == "OutOfMemoryError":
        return "oom", line or "out of memory"
    if isinstance(error, RuntimeError) and any(words in str(error) for words in LIBRARY_OOM):
        return "oom", line
    if isinstance(error, Unsupported):
        return "skipped_unsupported", line
    if isinstance(error, (WrongNumbers, UserError)):
        return "error", line
    return "error", f"{type(error).__name__}: {line}"
