"""The process that holds one side: builds a point by the code and the YAML of its own checkout, and
times calls whenever it is told to.

A line of JSON on stdin says what to build, every further line asks for a visit: calls for ROUND_S,
after one that fills the caches.  Answers are lines of JSON on a pipe of their own.  Fields are few
and plain, so that an older checkout understands them.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

from bench.measure.worker.parent import die_with_parent

ROUND_S = 0.2  # as of bench.measure.timing.sampling, which imports numpy


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events-fd", type=int, required=True)
    args = parser.parse_args()
    die_with_parent()
    with os.fdopen(args.events_fd, "w", buffering=1) as events:
        serve(sys.stdin, events)


def serve(asked: TextIO, answers: TextIO) -> None:
    """Build, then answer visits until stdin closes.  What fails is one answer with its reason."""

    def say(**fields: Any) -> None:
        answers.write(json.dumps(fields) + "\n")
        answers.flush()

    from bench.core.errors import EnvironmentFault, UserError

    try:
        time_once, flops, device = _built(json.loads(asked.readline()))
    except (UserError, EnvironmentFault) as error:
        return say(error=str(error))
    except Exception as error:
        line = (str(error).strip().splitlines() or [""])[0]
        return say(error=f"{type(error).__name__}: {line}")
    say(flops=flops, device=device)
    for _ in asked:
        say(seconds=visit(time_once))
    return None


def visit(time_once: Callable[[], float]) -> list[float]:
    """Seconds of calls for ROUND_S.  One before them is not counted, unless it is as long."""
    if (first := time_once()) >= ROUND_S:
        return [first]
    samples: list[float] = []
    while sum(samples) < ROUND_S:
        samples.append(time_once())
    return samples


def _built(what: dict[str, Any]) -> tuple[Callable[[], float], int, str]:
    """-> a call that times itself, the FLOPs that were counted for it, the kind of device."""
    import torch

    from bench.core.load import load_point
    from bench.core.user.code import name_yaml
    from bench.count.point import count_point
    from bench.measure.device.environment import choose_device
    from bench.measure.points.build import build_calls, check_supported, said_of_user_code
    from bench.measure.timing.clock import clock_for

    name_yaml(what["model"])
    stage = what["stage"]
    point = load_point(what["model"], what["workload"], what["recipe"], what["set"], (stage,))
    device = choose_device(what["device"])
    check_supported(point, device)
    inference = torch.inference_mode()
    with said_of_user_code([point]):
        flops = count_point(point).stages[stage].flops if what["count"] else 0
        call, clock = build_calls(point, device)[0][stage], clock_for(device)
        inference.__enter__()  # until the process ends
        call()
    return lambda: clock.time(call), flops, device.type


if __name__ == "__main__":
    main()
