"""A grid of what-if answers, for a page without a server.

A node is exact in model, resolution and guidance, and the page interpolates between the counted
lengths; `left_out_errors` says how well.
"""

import contextlib
import itertools
import math
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

from bench.calibrate.calibration import kind_of
from bench.core.errors import UserError
from bench.core.specs.point import Point
from bench.explore.choices import own_clip, sizes_of
from bench.explore.published import PUBLISHED, RUN_AS_PUBLISHED
from bench.explore.whatif import Answers, Question

MODELS = (
    "wan2.1-t2v-14b",
    "wan2.1-t2v-1.3b",
    "hunyuanvideo",
    "ltx-video-13b",
    "cogvideox-5b",
    "mochi-1",
    "sora-20b",
)
"""Of the published source; their work travels with the package (docs/make_evidence.py)."""
SECONDS = (1.0, 2.0, 5.0, 10.0, 20.0, 60.0)  # and the length of the model's own clip
SECONDS_TO_COUNT = (1.0, 5.0, 20.0, 60.0)  # by own records, which want every operator counted
GUIDANCES = ("none", "cfg")
GRID_FPS = 24.0
GRID_STEPS = 50
ENDS = ("value", "low", "high")
FIELDS = ("frames", "tokens", "step", "rest", "provenance", "fits", "evidence", "warnings")
"""Of a node, in this order in an exported page."""
DIGITS = 5  # of a number in an exported page
PROCESSES = 2


@dataclass(frozen=True)
class Asked:
    """A part of the grid: one model by one source, on some cards."""

    source: str
    model: str
    gpus: tuple[str | None, ...]
    """None: the source's own card."""
    own_gpu: str
    seconds: tuple[float, ...]
    """Of video: the lengths of its nodes."""


def asked_of(
    sources: Sequence[dict[str, Any]], models: Sequence[str], gpus: Sequence[str]
) -> list[Asked]:
    """What an exported page holds.  models, gpus: those that the user named, for every source.

    Without names: well-known models on all cards by published evidence, and of each device its
    newest calibration with the model of its headline."""
    newest = {s["device_name"]: s["id"] for s in sources if "cards" not in s}
    found = []
    for source in sources:
        others = tuple(gpu for gpu in gpus if gpu != source["gpu"])
        if "cards" in source:
            cards, wanted, lengths = tuple(source["cards"]), models or MODELS, SECONDS
        elif models or source["id"] == newest[source["device_name"]]:
            large = models if kind_of(source["gpu"]) != "cpu" else ()  # a CPU's records say nothing
            cards, wanted = (None, *others), large or _first_model(source)
            lengths = SECONDS_TO_COUNT
        else:
            continue
        found += [Asked(source["id"], model, cards, source["gpu"], lengths) for model in wanted]
    return found


def _first_model(source: dict[str, Any]) -> Sequence[str]:
    model = source["headline_model"]
    return [model] if model else []


def grid(
    results: Path,
    asked: Sequence[Asked],
    watch: Callable[[int, int, str], None] = lambda done, total, label: None,
    processes: int | None = None,
) -> dict[str, Any]:
    """Answers at every node, for a page without a server.  A cell that cannot be predicted keeps
    its reason.

    step, rest: seconds of one step and of all the rest of a video, each with its interval, so that
    the page can take any number of steps.  Interval ends are then added, as they are one machine's.
    An exported page is to stay small: a cell's nodes are lists in the order of `fields`, and words
    that repeat (warnings, evidence) are in `words` once."""
    parts: dict[Asked, list[dict[str, Any]]] = {}
    for i, (part, cells) in enumerate(_answered(results, asked, processes or PROCESSES)):
        watch(i, len(asked), f"{part.model}, {part.source}")
        parts[part] = cells
    cells = [cell for part in asked for cell in parts[part]]
    whole = [cell for cell in cells if "reason" not in cell]
    words: dict[str, int] = {}
    return {
        "cells": [
            cell | {"nodes": [_as_list(node, words) for node in cell["nodes"]]} for cell in whole
        ],
        "fields": FIELDS,
        "missing": [cell for cell in cells if "reason" in cell],
        "words": list(words),
        "fps": GRID_FPS,
        "steps": GRID_STEPS,
        "left_out_errors": left_out_errors(whole),
    }


def _answered(
    results: Path, asked: Sequence[Asked], processes: int
) -> Iterable[tuple[Asked, list[dict[str, Any]]]]:
    """Each part with its cells as they come; in this process where there is one part alone."""
    if processes < 2 or len(asked) < 2:
        answers = Answers(results)
        yield from ((part, cells_of(part, answers)) for part in asked)
        return
    with ProcessPoolExecutor(processes, get_context("spawn"), _begin, (results,)) as pool:
        with _interrupts_are_ours():
            futures = {pool.submit(_cells_here, part): part for part in asked}
        try:
            for done in as_completed(futures):
                yield futures[done], done.result()
        except BaseException:  # Ctrl-C: leaving the pool would wait for what it still computes
            for process in active_children():
                process.kill()
            raise


@contextlib.contextmanager
def _interrupts_are_ours() -> Iterator[None]:
    """A process that begins within ignores Ctrl-C: it prints nothing, and this one ends it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


_ANSWERS: Answers | None = None  # of a process of the pool


def _begin(results: Path) -> None:
    global _ANSWERS
    _ANSWERS = Answers(results)


def _cells_here(part: Asked) -> list[dict[str, Any]]:
    assert _ANSWERS is not None
    return cells_of(part, _ANSWERS)


def cells_of(part: Asked, answers: Answers) -> list[dict[str, Any]]:
    """A cell for each resolution, guidance and card: its nodes, or the reason why it has none."""
    cells = []
    for question in questions(part.source, part.model):
        for gpu in part.gpus:
            where = {
                "calibration": part.source,
                "model": part.model,
                "width": question.width,
                "height": question.height,
                "guidance": question.guidance,
                "gpu": gpu or part.own_gpu,
            }
            lengths = with_own(part.seconds, part.model)
            nodes, reason = _nodes(answers, replace(question, gpu=gpu), lengths)
            cells.append(
                {**where, "nodes": nodes} if len(nodes) > 1 else where | {"reason": reason}
            )
    return cells


def questions(source: str, model: str) -> Iterator[Question]:
    """One for each resolution and guidance; of which length is for the node to say."""
    for (width, height), guidance in itertools.product(sizes_of(model), GUIDANCES):
        yield Question(
            source,
            model,
            width=width,
            height=height,
            fps=GRID_FPS,
            steps=GRID_STEPS,
            guidance=guidance,
        )


def with_own(lengths: Sequence[float], model: str) -> list[float]:
    """Seconds at GRID_FPS, the model's own number of frames among them: exact where most ask."""
    clip = own_clip(model)
    own = [] if clip is None else [clip.frames / GRID_FPS]
    return sorted({*lengths, *own})


def points_by_default() -> Iterator[Point]:
    """Points of the published source's cells, whose work is to travel with the package."""
    for model in MODELS:
        lengths = with_own(SECONDS, model)
        for question, seconds in itertools.product(questions(PUBLISHED, model), lengths):
            with contextlib.suppress(UserError):  # the model does not take that size
                yield replace(question, seconds=seconds).point(RUN_AS_PUBLISHED)


def _nodes(
    answers: Answers, question: Question, lengths: Sequence[float]
) -> tuple[list[dict[str, Any]], str | None]:
    """Answers by length, and the last reason why one is missing."""
    nodes, reason = [], None
    for seconds in lengths:
        try:
            nodes.append(_node(answers.answer(replace(question, seconds=seconds))))
        except UserError as error:
            reason = str(error)
    return nodes, reason


def _node(answer: dict[str, Any]) -> dict[str, Any]:
    rest = [
        sum(q[end] for name, q in answer["stages"].items() if name != "denoise") for end in ENDS
    ]
    return {
        "frames": answer["frames"],
        "tokens": answer["tokens"],
        "step": [answer["step_s"][end] for end in ENDS],
        "rest": rest,
        "provenance": answer["provenance"],
        "evidence": answer["evidence"],
        "warnings": answer["warnings"],
        "fits": answer["fits_memory"],
    }


def _as_list(node: dict[str, Any], words: dict[str, int]) -> list[Any]:
    """A node's FIELDS: seconds to five digits, words by their places.  words: all so far."""
    short = node | {
        "step": [_rounded(seconds) for seconds in node["step"]],
        "rest": [_rounded(seconds) for seconds in node["rest"]],
        "evidence": words.setdefault(node["evidence"], len(words)),
        "warnings": [words.setdefault(word, len(words)) for word in node["warnings"]],
    }
    return [short[name] for name in FIELDS]


def _rounded(seconds: float) -> float:
    return float(f"{seconds:.{DIGITS}g}")


def left_out_errors(cells: Sequence[dict[str, Any]]) -> dict[str, float] | None:
    """|interpolated / predicted - 1| of seconds a step, each inner node left out in turn: twice
    the page's distances."""
    errors = [
        abs(_between(a, b, mid["frames"]) / mid["step"][0] - 1)
        for cell in cells
        for a, mid, b in zip(cell["nodes"], cell["nodes"][1:], cell["nodes"][2:], strict=False)
    ]
    return (
        {"mean": sum(errors) / len(errors), "worst": max(errors), "n": len(errors)}
        if errors
        else None
    )


def _between(a: dict[str, Any], b: dict[str, Any], frames: int) -> float:
    """Straight in logarithms of frames and seconds, as whatif.js does."""
    share = math.log(frames / a["frames"]) / math.log(b["frames"] / a["frames"])
    return math.exp((1 - share) * math.log(a["step"][0]) + share * math.log(b["step"][0]))
