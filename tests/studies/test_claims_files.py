"""A user's own claims and table, and the command."""

import json

import pytest
import yaml

from bench.core.errors import UserError
from bench.core.load import load
from bench.core.specs.claim import Claim
from bench.report.tables.claims import claims_document, claims_tables
from bench.studies.claims.verdict import CANNOT_TELL, HOLDS
from support.paths import ROOT
from support.studies.claims import evidence, ledger, one

UNCALIBRATED = ledger([])


MINE = """
description: mine
statement: a second a clip, without visible loss
source: me
claimed: {value: 1.0, unit: s}
check: {kind: latency, gpu: cpu, subject: {model: tiny, workload: tiny-image, recipe: eager-fp32}}
"""


def test_a_users_own_file(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text(MINE)
    card = evidence("cpu", 1 / (0.1 + 0.9 * load_steps() / 250))
    assert one(str(mine), card).verdict == HOLDS
    mine.write_text(MINE + "quality: without visible loss\n")
    lossless = one(str(mine), card)
    assert lossless.verdict == CANNOT_TELL
    assert "weights are random" in lossless.why
    assert one(str(mine), evidence("cpu", 1000.0)).is_off  # speed alone refutes it


def load_steps() -> int:
    from bench.core.specs.workload import Workload

    return load(Workload, "tiny-image").steps


def test_a_users_own_table(tmp_path):
    table = tmp_path / "t.csv"
    lines = (ROOT / "configs/reference/published_latency.csv").read_text().splitlines()
    table.write_text("\n".join([lines[0], lines[1].replace("L0000", "X1")]))
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: published-latencies\ncheck: {table: t.csv}\n")
    assert [j.id for j in ledger([str(mine)]).judged] == ["X1"]
    table.write_text(lines[0].replace("steps", "stepz", 1) + "\n")
    with pytest.raises(UserError, match="no column steps; did you mean stepz"):
        ledger([str(mine)])
    table.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        ledger([str(mine)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"claimed": None}, "a check of kind latency needs the claimed figure"),
        ({"claimed": {"unit": "s"}}, "either value, or low and high"),
        ({"claimed": {"unit": "s", "low": 3, "high": 2}}, "low 3 is over high 2"),
        ({"claimed": {"unit": "s", "value": -1}}, "claimed.value: -1"),
        ({"check": {"kind": "speed-up"}}, "check.kind: 'speed-up' is not one of chain, count"),
        ({"check": {"gpu": "h100"}}, "check.kind: missing"),
        (
            {"check": {"kind": "latency", "gpus": "cpu", "subject": {}}},
            "check.subject.model: missing",
        ),
        (
            {
                "check": {
                    "kind": "latency",
                    "gpu": "cpu",
                    "scop": "step",
                    "subject": {"model": "tiny", "workload": "tiny-image"},
                }
            },
            "check.scop: unknown key; did you mean scope",
        ),
        ({"tolerence": 0.2}, "tolerence: unknown key; did you mean tolerance?"),
        (
            {"check": {"kind": "latency", "gpu": "cpu", "subject": {"model": "tiny"}}},
            "check.subject.workload: missing",
        ),
    ],
)
def test_broken_files_are_one_line(tmp_path, change, message):
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump({**yaml.safe_load(MINE), **change}))
    with pytest.raises(UserError) as caught:
        load(Claim, str(mine))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_names_have_a_near_miss(tmp_path):
    with pytest.raises(UserError, match="did you mean lcm-4-steps"):
        ledger(["lcm-4-step"])
    mine = tmp_path / "mine.yaml"
    mine.write_text(MINE.replace("gpu: cpu", "gpu: h100-sx"))
    with pytest.raises(UserError, match="did you mean h100-sxm"):
        ledger([str(mine)])
    mine.write_text("extends: sora-analysis\ncheck: {inputs: [A15 uploads to YouTub]}\n")
    with pytest.raises(UserError, match="did you mean A15 uploads to YouTube"):
        ledger([str(mine)])


def test_the_document_is_json_and_the_tables_show_every_claim():
    document = json.loads(json.dumps(claims_document(UNCALIBRATED), allow_nan=False))
    by_id = {c["id"]: c for c in document["claims"]}
    assert {
        "id",
        "claimed",
        "ours",
        "ratio",
        "verdict",
        "why",
        "source",
        "unit",
        "provenance",
    } <= set(by_id["A11"])
    assert by_id["A11"]["claimed"] == 5.03
    assert by_id["A11"]["ours"]["low"] == 0
    assert by_id["A11"]["ratio"]["value"] == pytest.approx(0.41789 / 5.03, rel=1e-4)
    assert by_id["dollars-per-minute"]["claimed"] == {"value": None, "low": 10, "high": 36}
    assert by_id["dollars-per-minute"]["ours"]["high"] is None
    assert by_id["L0674"]["ours"] is by_id["L0674"]["ratio"] is None
    assert by_id["L0674"]["source"].startswith("github sayakpaul/diffusers-torchao")
    assert sum(len(t.rows) for t in claims_tables(UNCALIBRATED)[:-1]) == len(UNCALIBRATED.judged)


def test_the_command(here):
    code, out, _ = here("claims", "--claim", "A11", "--claim", "dit-step-flop", "--json")
    assert code == 0
    assert [c["id"] for c in json.loads(out)["claims"]] == ["A11", "dit-step-flop"]
    assert here("claims", "--claim", "dit-step-flop", "--strict")[0] == 1
    assert here("claims", "--claim", "sora-minute-over-gpt4-document", "--strict")[0] == 0
    code, _, err = here("claims", "--claim", "A99")
    assert code == 2
    assert err.count("\n") == 1


def test_a_real_cpu_calibration_judges_its_own_device_alone(measured, tmp_path, here):
    directory, _ = measured
    mine = tmp_path / "mine.yaml"
    mine.write_text(MINE.replace("value: 1.0", "value: 1e-9"))
    code, out, err = here(
        "claims",
        "--calibration",
        str(directory),
        "--claim",
        str(mine),
        "--claim",
        "lcm-4-steps",
        "--json",
    )
    assert code == 0, err
    own, theirs = json.loads(out)["claims"]
    assert own["ours"]["low"] <= own["ours"]["value"] <= own["ours"]["high"]
    assert own["verdict"].startswith("off by")  # nobody does it in a nanosecond
    assert own["conditions"] == {
        "model": "tiny",
        "workload": "tiny-image",
        "recipe": "eager-fp32",
        "gpu": "cpu",
    }
    assert theirs["verdict"] == CANNOT_TELL
    assert "by 19 latencies that others published of h100-sxm" in theirs["why"]
