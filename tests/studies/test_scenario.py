"""The pencil under other assumptions: by its own rules, counted and predicted beside them."""

import json

import pytest

from bench.core.errors import UserError
from bench.count.closed import dit as closed_form
from bench.studies.pencil.analytic import chain, scenario_rows
from bench.studies.pencil.assumptions import Assumptions
from bench.studies.pencil.demand import Demand, Headroom
from bench.studies.pencil.scenario import NAMES, published_scenario, scenario


def row(rows, id_: str):
    return next(r for r in rows if r.id == id_)


def test_nothing_set_is_the_published_estimate():
    assert scenario({}).is_published
    assert scenario_rows(published_scenario()) == chain(Assumptions(), Demand(), Headroom())
    base = published_scenario()
    assert (base.a.pixels_ratio, base.workload.name) == (1.0, "sora-1min-512")


def test_the_pencil_by_hand():
    s = scenario({"params": 10e9, "seconds": 30, "height": 720, "width": 1280, "steps": 50})
    # 524e9 x 15 (half the size) x 720 x 1280 / 512^2 x 30 s x 24 / 8 latent frames
    step = 524e9 * 15 * (720 * 1280 / 512**2) * 90
    rows = scenario_rows(s)
    assert row(rows, "A10").computed == pytest.approx(step)
    minutes = 989.4e12 * 3600 / (step * 50) * 30 / 60
    assert row(rows, "A11").computed == pytest.approx(minutes)
    assert all(r.printed is None for r in rows)
    assert "30 s" in row(rows, "A10").quantity


def test_what_is_counted_is_what_was_set():
    s = scenario({"params": 10e9, "seconds": 30, "height": 720, "width": 1280, "steps": 50})
    assert closed_form.dit_parameters(s.model.denoiser) == pytest.approx(10e9, rel=0.05)
    latents = s.model.latent_shape(s.workload)
    assert latents == (90, 90, 160)  # 720 frames / 8, 720 / 8, 1280 / 8
    forward = sum(closed_form.dit_forward(s.model.denoiser, latents, 1).values())
    rows = scenario_rows(s)
    assert row(rows, "A10").corrected == forward
    assert row(rows, "A11").corrected == pytest.approx(989.4e12 * 3600 / (forward * 50) * 30 / 60)


def test_demand_and_fleet():
    twice = scenario({"tiktok_share": 1.0, "youtube_share": 0.3, "utilisation": 0.25})
    a, b = (row(scenario_rows(s), "A16") for s in (published_scenario(), twice))
    assert b.computed == pytest.approx(2 * a.computed)
    assert twice.headroom.factor == pytest.approx(2 * Headroom().factor)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"parms": 1e9}, "'parms' is not one of params"),
        ({"seconds": "long"}, "expected a number from 1 to 600"),
        ({"seconds": True}, "expected a number from 1 to 600"),
        ({"steps": 0}, "expected a number from 1 to 10000"),
        ({"steps": 2.5}, "expected a whole number"),
        ({"height": 100}, "nearest: 96 or 104"),
        ({"params": float("nan")}, "expected a number"),
    ],
)
def test_mistakes(changes, says):
    with pytest.raises(UserError, match="--set") as raised:
        scenario(changes)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_every_name_can_be_set():
    middle = {n: (k.least * k.most) ** 0.5 for n, k in NAMES.items() if k.part != "workload"}
    middle |= {"seconds": 10, "fps": 24, "height": 256, "width": 256, "steps": 30}
    assert set(middle) == set(NAMES)
    s = scenario(middle)
    assert dict(s.changed) == pytest.approx(middle)
    assert s.headroom.utilisation == pytest.approx(middle["utilisation"])


def test_the_command(here):
    code, out, err = here("analytic", "--set", "seconds=8", "--set", "steps=20", "--json")
    document = json.loads(out)
    assert code == 0, err
    assert document["assumed"]["set"] == {"seconds": 8, "steps": 20}
    assert document["assumed"]["provenance"] == "claimed"
    (minutes,) = [r for r in document["rows"] if r["id"] == "A11"]
    assert minutes["calibrated"]["low"] < minutes["calibrated"]["value"] < minutes["corrected"]
    code, _, err = here("analytic", "--set", "seconds=8")
    assert "assumed by you: seconds 8" in err
    code, _, err = here("analytic", "--set", "secnds=8")
    assert (code, len(err.strip().splitlines())) == (2, 1)
    assert "did you mean seconds?" in err
