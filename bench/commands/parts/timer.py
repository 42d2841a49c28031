"""Whether the clock is right: doctor --timer."""

from bench.commands.parts.output import print_json, show

MODEL, WORKLOAD, RECIPE, ROUNDS = "tiny", "tiny-video", "eager-fp32", 40


def check_timer(
    model: str,
    workload: str,
    recipe: str,
    device: str | None,
    rounds: int,
    assignments: list[str] | None,
    as_json: bool,
) -> int:
    """Hold the harness's clock against a bare loop and torch.utils.benchmark; on CUDA also against
    a graph replay -> 0 where they agree, 1 where they do not."""
    from bench.core.load import load_point, parse_overrides

    point = load_point(model, workload, recipe, parse_overrides(assignments or []))
    import torch

    from bench.measure.device.environment import choose_device
    from bench.measure.points.build import build_calls
    from bench.measure.timing.check import check_timer as hold_against_loop
    from bench.measure.timing.clock import clock_for, clock_without_hold
    from bench.report.progress import Spinner
    from bench.report.tables.doctor import timer_table

    chosen = choose_device(device)
    call = build_calls(point, chosen)[0]["denoise_step"]
    with torch.inference_mode(), Spinner("timing in turns") as spinner:
        checked = hold_against_loop(
            call,
            chosen,
            clock_for(chosen),
            rounds,
            lambda done: spinner.at(done, rounds),
            clock_without_hold(chosen),
        )
    if as_json:
        print_json({"point": point.label, **checked.as_dict()})
    else:
        show(timer_table(point.label, checked.as_dict()))
    return 0 if checked.agrees else 1
