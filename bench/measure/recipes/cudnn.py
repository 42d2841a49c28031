"""cuDNN's own choice of a convolution algorithm by timing (torch.backends.cudnn.benchmark), kept
apart from other calls.

PyTorch keeps the plan that it found for a convolution and looks there first, whether or not it was
found by timing (aten/src/ATen/native/cudnn/Conv_v8.cpp): what ran before without the setting would
decide what runs with it, and the other way round.  Those plans are kept for each thread, so calls
under the setting run on a thread of their own.
"""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch


@cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="cudnn-benchmark")


def benchmarked(call: Callable[..., Any], *args: Any) -> Any:
    """The call with cuDNN timing its algorithms, on the thread that keeps what they gave.

    Handing it over takes tens of microseconds.  Work goes to the stream of the caller."""
    inference, grad = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
    stream = torch.cuda.current_stream() if torch.cuda.is_available() else None

    def run() -> Any:
        on_stream = contextlib.nullcontext() if stream is None else torch.cuda.stream(stream)
        with torch.inference_mode(inference), torch.set_grad_enabled(grad), on_stream, _benchmark():
            return call(*args)

    return _thread().submit(run).result()


@contextlib.contextmanager
def _benchmark() -> Iterator[None]:
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
