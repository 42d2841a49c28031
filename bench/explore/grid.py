"""A grid of what-if answers, for a page without a server; and what the panel offers.

A node is exact in model, resolution and guidance, and the page interpolates between the counted
lengths; `left_out_errors` says how well.
"""

import itertools
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.core.errors import UserError
from bench.core.load import load, names
from bench.core.specs.gpu import Gpu
from bench.explore.whatif import Answers, Question

SIZES = ((256, 256), (512, 512), (832, 480), (1280, 720))  # of a grid: width, height
SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
GUIDANCES = ("none", "cfg")
GRID_FPS = 24.0
GRID_STEPS = 50


def grid(
    results: Path,
    calibrations: list[dict[str, Any]],
    models: list[str],
    gpus: list[str | None],
    watch: Callable[[int, int, str], None] = lambda done, total, label: None,
) -> dict[str, Any]:
    """Answers at every node, for a page without a server.  A node that cannot be predicted keeps
    its reason.

    steps: seconds of one step and of all the rest of a video, each with its interval, so that the
    page can take any number of steps.  Interval ends are then added, as they are one machine's."""
    answers, cells, missing = Answers(results), [], []
    asked = list(itertools.product(models, SIZES, GUIDANCES))
    for i, (model, (width, height), guidance) in enumerate(asked):
        watch(i, len(asked), f"{model} {width}x{height} guidance {guidance}")
        for calibration, gpu in itertools.product(calibrations, gpus):
            where = {
                "calibration": calibration["id"],
                "model": model,
                "width": width,
                "height": height,
                "guidance": guidance,
                "gpu": gpu or calibration["gpu"],
            }
            nodes, reason = _nodes(answers, where, calibration["gpu"])
            if len(nodes) > 1:
                cells.append({**where, "nodes": nodes})
            else:
                missing.append({**where, "reason": reason})
    return {
        "cells": cells,
        "missing": missing,
        "sizes": SIZES,
        "fps": GRID_FPS,
        "steps": GRID_STEPS,
        "left_out_errors": left_out_errors(cells),
    }


def _nodes(
    answers: Answers, where: dict[str, Any], own_gpu: str
) -> tuple[list[dict[str, Any]], str | None]:
    """Answers by length, and the last reason why one is missing."""
    carried_to = None if where["gpu"] == own_gpu else where["gpu"]
    nodes, reason = [], None
    for seconds in SECONDS:
        question = Question(
            **{**where, "gpu": carried_to}, seconds=seconds, fps=GRID_FPS, steps=GRID_STEPS
        )
        try:
            nodes.append(_node(answers.answer(question)))
        except UserError as error:
            reason = str(error)
    return nodes, reason


def _node(answer: dict[str, Any]) -> dict[str, Any]:
    rest = [
        sum(q[end] for name, q in answer["stages"].items() if name != "denoise")
        for end in ("value", "low", "high")
    ]
    return {
        "frames": answer["frames"],
        "step": [answer["step_s"][end] for end in ("value", "low", "high")],
        "rest": rest,
        "provenance": answer["provenance"],
        "warnings": answer["warnings"],
        "fits": answer["fits_memory"],
    }


def left_out_errors(cells: list[dict[str, Any]]) -> dict[str, float] | None:
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
    """Straight in logarithms of frames and seconds, as explore.js does."""
    share = math.log(frames / a["frames"]) / math.log(b["frames"] / a["frames"])
    return math.exp((1 - share) * math.log(a["step"][0]) + share * math.log(b["step"][0]))


def choices() -> dict[str, Any]:
    """What the panel offers: presets, cards with their prices, resolutions; the demand of
    `bench.studies.pencil.demand`."""
    from bench.calibrate.calibration import kind_of
    from bench.studies.pencil.demand import HOURS_PER_DAY, Demand, Headroom

    cards = [load(Gpu, name) for name in names("gpus")]
    price = {
        c.name: c.price_usd_per_hour and json.loads(c.price_usd_per_hour.model_dump_json())
        for c in cards
    }
    return {
        "models": names("models"),
        "sizes": SIZES,
        "gpus": [{"name": c.name, "price": price[c.name], "kind": kind_of(c.name)} for c in cards],
        "demand": {
            "minutes_per_day": Demand().minutes_per_day,
            **asdict(Headroom()),
            "hours_per_day": HOURS_PER_DAY,
        },
    }
