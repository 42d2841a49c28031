"""A profile as an icicle: a row for each level of modules, as wide as their time."""

from dataclasses import dataclass, field

import matplotlib.pyplot as plt

from bench.core.units import seconds
from bench.report.figures.drawing import (
    AMBER,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    Drawing,
    legend_below,
    literal,
)
from bench.report.profile.rows import together
from bench.results.profile import Profile

COLOURS = {
    "linear": BLUE,
    "attention": ORANGE,
    "conv": GREEN,
    "norm": PURPLE,
    "memory": SKY,
    "other": AMBER,
}
LETTERS = 118  # that fit into the whole width
NARROW = 0.004  # of the whole: narrower boxes have no edge


@dataclass
class Box:
    """A module with its time, its children's included."""

    name: str
    own: dict[str, float] = field(default_factory=dict)
    """Seconds of its own operators by kind."""
    children: dict[str, "Box"] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return sum(self.own.values()) + sum(child.seconds for child in self.children.values())


def boxes(profile: Profile) -> Box:
    """The modules as a tree; those of a list are one."""
    root = Box(profile.stage)
    for spent in profile.modules:
        box = root
        names = together(spent.module).replace(".*", " ×")  # a list's blocks are one box
        path = names.split(".") if "." in spent.module else []
        for part in path:
            box = box.children.setdefault(part, Box(part))
        box.own[spent.kind] = box.own.get(spent.kind, 0.0) + spent.seconds
    return root


def icicle(profile: Profile) -> Drawing:
    """Widths are shares of the step; what no operator explains is grey, at the right."""
    root = boxes(profile)
    depth = _depth(root)
    figure, axes = plt.subplots(figsize=(9.0, 0.42 * depth + 0.9))
    whole = max(profile.step_s, profile.in_operators_s)
    _draw(axes, root, 0.0, 0, whole)
    rest = profile.residual_s
    if rest > 0:
        _bar(axes, 0, profile.in_operators_s, rest, GREY, "in no operator", whole)
    axes.set_xlim(0, 100)
    axes.set_ylim(depth - 0.4, -0.6)
    axes.set_yticks([])
    axes.set_xlabel("share of the call (%)")
    used = {kind for spent in profile.modules for kind in [spent.kind] if spent.seconds > 0}
    kinds = [kind for kind in COLOURS if kind in used]
    handles = [plt.Rectangle((0, 0), 1, 1, color=COLOURS[kind], label=kind) for kind in kinds]
    legend_below(figure, handles, columns=len(kinds))
    caption = (
        f"Where {seconds(profile.step_s)} of {profile.stage} go (measured, mean of {profile.calls}"
        " profiled calls): modules from the outermost down, blocks of a list together, coloured by"
        " the kind of their own operators."
    )
    return Drawing(figure, caption)


def _depth(box: Box) -> int:
    inner = max((_depth(child) for child in box.children.values()), default=0)
    return 1 + max(inner, 1 if box.own else 0)


def _draw(axes: plt.Axes, box: Box, left: float, level: int, whole: float) -> None:
    """The box, below it its children, and its own operators by kind."""
    _bar(axes, level, left, box.seconds, "#e3e7ec", box.name, whole, ink="#1b1f24")
    x = left
    for child in sorted(box.children.values(), key=lambda c: -c.seconds):
        _draw(axes, child, x, level + 1, whole)
        x += child.seconds
    for kind, spent in sorted(box.own.items(), key=lambda item: -item[1]):
        _bar(axes, level + 1, x, spent, COLOURS.get(kind, GREY), kind, whole)
        x += spent


def _bar(
    axes: plt.Axes,
    level: int,
    left: float,
    width: float,
    colour: str,
    name: str,
    whole: float,
    ink: str = "#ffffff",
) -> None:
    share = width / whole
    if share <= 0:
        return
    axes.barh(
        level,
        100 * share,
        left=100 * left / whole,
        height=0.92,
        color=colour,
        edgecolor="#ffffff",
        linewidth=0.6 if share > NARROW else 0.0,
    )
    if len(name) <= LETTERS * share:
        middle = 100 * (left + width / 2) / whole
        axes.text(middle, level, literal(name), ha="center", va="center", color=ink, fontsize=7)
