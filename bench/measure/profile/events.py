"""From the profiler's events to seconds by module and operator.

An event's own time is its duration less its children's; on CUDA it is that of the kernels it
launched.  It belongs to the innermost module whose mark it lies in.  On the host, recording an
event takes a few microseconds, which lie in its parent: they are taken off there.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

MODULE, ATTENTION, CALL = "ldt:module:", "ldt:attention", "ldt:call"
"""Names of our own marks."""

THROUGH = ("Torch-Compiled", "## Call", "Compiled", "TorchDynamo", "Pregraph", "AOTDispatcher")
"""How names begin of what holds operators and is none: compiled regions."""
KINDS = (
    ("attention", ("attention", "flash", "fmha", "sage", "flex")),
    ("conv", ("conv", "im2col", "cudnn_infer", "implicit_gemm")),
    (
        "linear",
        (
            "linear",
            "ldt_bench::product",
            "addmm",
            "::mm",
            "bmm",
            "baddbmm",
            "gemm",
            "cutlass",
            "nvjet",
            "_mm",
        ),
    ),
    ("norm", ("norm",)),
)
"""The kind of an operator or kernel by words in its name, first match; all others move memory."""


@dataclass
class Event:
    """One event: a mark, an operator or a library's own."""

    name: str
    start_s: float
    end_s: float
    kernels: list[tuple[str, float]] = field(default_factory=list)
    """(name, seconds) of those that it launched, on CUDA."""
    children: list["Event"] = field(default_factory=list)

    nested: int = 0
    """Events that were recorded in its own time, and are not among its children."""

    def own_s(self, record_s: float) -> float:
        """On the host.  record_s: what recording one event takes."""
        inside = sum(child.end_s - child.start_s for child in self.children)
        recorded = record_s * (self.nested + len(self.children))
        return max(self.end_s - self.start_s - inside - recorded, 0.0)

    @property
    def events(self) -> int:
        """It and all within it."""
        return 1 + self.nested + sum(child.events for child in self.children)


@dataclass(frozen=True)
class Slice:
    """Time of one operator in one module."""

    module: str
    kind: str
    name: str
    seconds: float


def kind_of(name: str) -> str:
    """linear, attention, conv, norm or memory, of an operator or a kernel."""
    low = name.lower()
    return next((kind for kind, words in KINDS if any(word in low for word in words)), "memory")


def slices(root: Event, *, kernels: bool, record_s: float = 0.0) -> Iterator[Slice]:
    """Of all that ran within `root`.  kernels: by device time, not by the host's; record_s: seconds
    that recording one event takes."""
    stack = [(root, "", False)]
    while stack:
        event, module, attending = stack.pop()
        is_mark = event is root or event.name.startswith(("ldt:", *THROUGH))
        if event.name.startswith(MODULE):
            module = event.name.removeprefix(MODULE)
        attending = attending or event.name == ATTENTION
        if kernels:
            for name, seconds in event.kernels:
                yield Slice(module, "attention" if attending else kind_of(name), name, seconds)
        elif not is_mark:
            kind = "attention" if attending else kind_of(event.name)
            yield Slice(module, kind, event.name, event.own_s(record_s))
        stack += [(child, module, attending) for child in event.children]


def of_outermost(root: Event) -> Event:
    """The same where an operator holds all that it calls: aten::linear's time is in aten::linear,
    not in the product it hands on to."""
    kept = []
    for child in root.children:
        if child.name.startswith(("ldt:", *THROUGH)):
            kept.append(of_outermost(child))
            continue
        marks = [of_outermost(mark) for mark in _marks(child)]  # compiled code calls modules
        own = list(_without_marks(child))
        launched = [pair for event in own for pair in event.kernels]
        nested = len(own) - 1
        kept.append(Event(child.name, child.start_s, child.end_s, launched, marks, nested))
    return Event(root.name, root.start_s, root.end_s, list(root.kernels), kept)


def _marks(event: Event) -> Iterator[Event]:
    for child in event.children:
        if child.name.startswith("ldt:"):
            yield child
        else:
            yield from _marks(child)


def _without_marks(event: Event) -> Iterator[Event]:
    yield event
    for child in event.children:
        if not child.name.startswith("ldt:"):
            yield from _without_marks(child)


def by_module(found: Iterable[Slice]) -> dict[tuple[str, str], tuple[float, int]]:
    """(module, kind) -> (seconds, operators)."""
    totals: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0])
    for piece in found:
        total = totals[piece.module, piece.kind]
        total[0] += piece.seconds
        total[1] += 1
    return {key: (seconds, int(calls)) for key, (seconds, calls) in totals.items()}


def by_operator(found: Iterable[Slice]) -> dict[tuple[str, str], tuple[float, int]]:
    """(name, kind) -> (seconds, calls)."""
    return by_module(Slice(p.name, p.kind, p.name, p.seconds) for p in found)
