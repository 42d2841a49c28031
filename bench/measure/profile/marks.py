"""Marks in the profiler's record: which module runs, and where attention begins and ends."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.profiler import record_function

from bench.measure.attention.watching import watching
from bench.measure.profile.events import ATTENTION, MODULE


@contextlib.contextmanager
def marked(modules: dict[str, nn.Module], attention: bool) -> Iterator[None]:
    """Within, each module (by the path it is to have) is marked, and every attention call."""
    handles = [handle for name, module in modules.items() for handle in _mark(name, module)]
    try:
        with watching(_attend) if attention else contextlib.nullcontext():
            yield
    finally:
        for handle in handles:
            handle.remove()


def named_from(part: nn.Module, roots: Iterable[str], closed: Iterable[nn.Module]) -> dict:
    """Path -> module, as the counting trace names them: from the class name of the outermost module
    that runs.

    roots: these class names; closed: modules whose inside is not marked, since compiled code has
    no marks in it."""
    wanted, found, inside = set(roots), {}, {id(m) for top in closed for m in top.modules()}
    for module in part.modules():
        root = type(module).__name__
        if root not in wanted:
            continue
        wanted.discard(root)
        for name, inner in module.named_modules():
            if id(inner) not in inside:
                found[f"{root}.{name}".rstrip(".")] = inner
    return found


def _mark(name: str, module: nn.Module) -> list[Any]:
    open_marks: list[Any] = []

    def before(*_: Any) -> None:
        mark = record_function(MODULE + name)
        mark.__enter__()
        open_marks.append(mark)

    def after(*_: Any) -> None:
        open_marks.pop().__exit__(None, None, None)

    return [
        module.register_forward_pre_hook(before),
        module.register_forward_hook(after, always_call=True),
    ]


def _attend(attend: Callable[..., Tensor], *args: Any, **given: Any) -> Tensor:
    with record_function(ATTENTION):
        return attend(*args, **given)
