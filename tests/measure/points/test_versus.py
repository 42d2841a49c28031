"""Two sides in turns: the ratio is right under drift, its interval says when it is not known, the
presets do equal work."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from bench.commands.studies.versus import versus
from bench.core.load import load_point
from bench.count.point import count_point
from bench.measure.points.versus import MIN_ROUNDS, Versus, paired_ratio, time_in_turns
from bench.measure.worker.jobs import Session, answer
from bench.report.tables.versus import side, versus_document, versus_line
from support.cli import cli
from support.paths import ROOT


class Machine:
    """A clock on which a call of side i takes seconds[i], more as the machine slows down, with
    noise."""

    def __init__(self, *seconds: float, drift: float = 0.0, noise: float = 0.0):
        self.seconds, self.drift, self.noise = seconds, drift, noise
        self.t, self.log, self.rng = 0.0, "", np.random.default_rng(0)

    def timed(self, i: int):
        def call() -> float:
            taken = (
                self.seconds[i]
                * (1 + self.drift * self.t)
                * (1 + self.noise * self.rng.standard_normal())
            )
            self.t += taken
            self.log += "ab"[i]
            return taken

        return call

    def versus(self, rounds: int = 40, max_s: float = 1e6) -> Versus:
        return time_in_turns(
            [self.timed(0), self.timed(1)], lambda: self.t, rounds=rounds, max_s=max_s
        )


def test_a_planted_ratio_is_found_on_a_machine_that_slows_down_to_half_its_speed():
    found = Machine(0.1, 0.12, drift=1 / 30, noise=0.02).versus()
    _, low, high = found.ratio
    assert low < 1.2 < high
    assert high - low < 0.06
    assert found.verdict == "FASTER"
    assert len(found.a_s) == len(found.b_s) == 40
    assert found.stop == "rounds"


def test_the_sides_swapped_give_the_inverse_and_the_other_verdict():
    found = Machine(0.12, 0.1).versus()
    assert found.ratio == pytest.approx((1 / 1.2,) * 3)
    assert found.verdict == "SLOWER"


def test_what_noise_hides_is_unclear():
    assert Machine(0.1, 0.101, noise=0.3).versus(rounds=10).verdict == "UNCLEAR"


def test_rounds_alternate_in_order_and_a_cold_call_is_not_counted():
    machine = Machine(1.0, 1.0)
    found = machine.versus(rounds=6)
    timed = machine.log.removeprefix("aaaabbbb")  # three warm-up calls and a round of each
    assert timed == "abbaabbaabba"  # a call longer than a visit: one each, none left out
    assert found.calls == (6, 6)
    short = Machine(0.1, 0.1)
    assert short.versus(rounds=6).calls == (
        18,
        18,
    )  # 0.25 s take three calls, and one before them is not counted
    assert short.log.removeprefix("a" * 6 + "b" * 6).startswith("aaaa" + "bbbb" * 2 + "aaaa" * 2)


def test_time_ends_it_after_the_fewest_rounds():
    assert Machine(1.0, 1.0).versus(max_s=3.0).stop == "timeout"
    assert len(Machine(1.0, 1.0).versus(max_s=3.0).a_s) == MIN_ROUNDS
    assert len(Machine(9.0, 9.0).versus(rounds=7).a_s) == 7  # calls over 5 s too


def test_the_interval_holds_what_it_promises():
    """The true median ratio lies in it about 95 times in 100."""
    rng, held = np.random.default_rng(1), 0
    for seed in range(200):
        a, b = rng.lognormal(0, 0.05, 30), 1.1 * rng.lognormal(0, 0.05, 30)
        _, low, high = paired_ratio(list(a), list(b), seed)
        held += low <= 1.1 <= high
    assert 182 <= held <= 200


def test_the_presets_do_the_same_work_within_half_a_percent():
    ours, theirs = (
        count_point(load_point(model, "versus-cpu", "eager-bf16")).stages
        for model in ("wan-shaped-tiny", "wan-tiny")
    )
    for stage in ("forward", "denoise_step", "vae_decode"):
        assert ours[stage].flops == pytest.approx(theirs[stage].flops, rel=0.005)


def test_unequal_work_is_said_and_the_ratio_given_for_equal_flops():
    point = load_point("tiny", "tiny-image", "eager-fp32")
    peak = {"peak_bytes": 200, "source": "a test"}
    a, b = (
        side(point, 100, 80, peak, [1.0], 1),
        side(point, 150, 40, peak | {"peak_bytes": None}, [2.0], 1),
    )
    document = versus_document(a, b, "w", "forward", "cpu", (2.0, 1.8, 2.2), "FASTER", "rounds")
    assert document["ratio_per_flop"]["value"] == pytest.approx(2.0 / 1.5)
    assert not document["flops_equal"]
    assert "FLOPs of a differ by -33.3%; for equal FLOPs 1.333 (1.2 to 1.467)" in versus_line(
        document
    )
    assert "peak memory of b / a 0.5 counted" in versus_line(document)


def test_the_peak_holds_the_weights():
    """16 times the weights of tiny, so that they stand out of what else the process takes; a
    process of its own, since one that has run other things takes pages it has had before."""
    point = load_point("tiny", "tiny-image", "eager-fp32", {"width": 1024, "num_heads": 16})
    weights = 4 * count_point(point).params["denoiser"]
    code = (
        "import sys, torch; from bench.core.specs.point import Point; from"
        " bench.measure.points.versus import measure_peak\npoint ="
        " Point.model_validate_json(sys.stdin.read())\nprint(measure_peak(point, 'forward',"
        " torch.device('cpu'))['peak_bytes'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=point.model_dump_json(),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    peak = done.stdout.strip()
    assert peak == "None" or 0.9 * weights < int(peak) < 1.5 * weights


class Here:
    """The worker's jobs in this process, which has torch already."""

    def __init__(self, device: str):
        self.device = torch.device(device)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass

    def run(self, request, timeout_s):
        return answer(request, Session(self.device, None))


def test_versus_on_the_command_line(monkeypatch, capsys):
    monkeypatch.setattr("bench.measure.worker.process.Worker", Here)
    versus(
        "tiny",
        "tiny",
        workload="tiny-image",
        recipe="eager-fp32",
        recipe_b="eager-bf16",
        rounds=6,
        max_time="1s",
        device="cpu",
        set_b=["depth=2"],
        stage="forward",
        as_json=True,
    )
    document = json.loads(capsys.readouterr().out)
    assert {"a", "b", "flops_a", "flops_b", "ratio"} <= document.keys()
    assert document["ratio"].keys() == {"value", "low", "high"}
    assert document["flops_b"] < document["flops_a"]
    assert document["rounds"] == 6
    assert [s["recipe"] for s in document["sides"].values()] == ["eager-fp32", "eager-bf16"]
    # In one process with the tests a toy may find room that is there already;
    # test_the_peak_holds_the_weights has its own.
    assert all(s["peak_bytes"] is None or s["peak_bytes"] >= 0 for s in document["sides"].values())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--stage", "vae_decod"], "did you mean vae_decode?"),
        (["--max-time", "soon"], "--max-time"),
        (["--stage", "text_encode", "--set-a", "text_encoders.0.width=0"], "width"),
    ],
)
def test_mistakes_are_one_line(args, message):
    done = cli(
        "versus",
        "tiny",
        "tiny",
        "--workload",
        "tiny-image",
        "--recipe",
        "eager",
        "--set",
        "recipe.dtype=fp32",
        *args,
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
