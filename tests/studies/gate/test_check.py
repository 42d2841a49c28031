"""check: counts of named points against a committed baseline, exactly."""

import json

import pytest

from bench.studies.gate.baseline import parse_point, read_baseline
from bench.studies.gate.changes import Change, changes
from support.paths import ROOT

TINY = "tiny:tiny-clip:eager-fp32"


@pytest.fixture
def baseline(tmp_path, here):
    path = tmp_path / "baseline.json"
    assert here("check", str(path), "--add", TINY, "--add", TINY)[0] == 0
    return path


def edited(path, change) -> None:
    data = json.loads(path.read_text())
    change(data["points"][0])
    path.write_text(json.dumps(data))


def test_what_is_equal_passes(baseline, here):
    assert len(read_baseline(baseline).points) == 1  # each once
    code, out, _ = here("check", str(baseline))
    assert (code, out) == (0, "ok: 1 points, 0 changes\n")


def test_a_changed_count_fails_with_its_share(baseline, here, tmp_path):
    def halve(point):
        step = point["stages"]["denoise_step"]
        for name in step:
            step[name] //= 2

    edited(baseline, halve)
    words = tmp_path / "said.md"
    code, out, _ = here("check", str(baseline), "--json", "--markdown", str(words))
    said = json.loads(out)
    assert (code, said["verdict"]) == (1, "FAIL")
    flops = next(c for c in said["changes"] if c["what"] == "denoise_step: FLOPs")
    assert flops["share"] == pytest.approx(1.0, rel=1e-6)
    assert "check: FAIL" in words.read_text()
    assert "| denoise_step: FLOPs |" in words.read_text()


def test_a_changed_depth_of_ones_own_model_fails(tmp_path, here, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "configs" / "models" / "tiny.yaml").read_text()
    assert "depth: 4" in text
    model = tmp_path / "mine.yaml"
    model.write_text(text)
    assert here("check", "b.json", "--add", "mine.yaml:tiny-clip:eager-fp32")[0] == 0
    model.write_text(text.replace("depth: 4", "depth: 8"))
    code, out, _ = here("check", "b.json", "--json")
    found = {c["what"]: c["share"] for c in json.loads(out)["changes"]}
    assert code == 1
    assert 0.9 < found["denoise_step: FLOPs"] < 1.0  # all but the two ends of the model
    assert found["parameters of denoiser"] > 0.8
    assert "vae_decode: FLOPs" not in found
    model.unlink()
    code, out, _ = here("check", "b.json", "--json")
    assert code == 1
    assert "mine.yaml" in json.loads(out)["changes"][0]["reason"]


def test_the_committed_baseline_holds():
    assert changes(read_baseline(ROOT / ".github" / "baseline.json")) == []


def test_words():
    assert Change("p", "x", 100, 187).words == "+87.00%"
    assert Change("p", "x", None, 1).words == "is new"
    assert Change("p", "x", 1, None).words == "is gone"
    assert Change("p", "x", 10**9, 10**9 + 1).words == "+1e-09"


@pytest.mark.parametrize("text", ["tiny", "tiny:", ":tiny-clip", "a:b:c:d", ""])
def test_a_point_that_is_none(text, here, tmp_path):
    code, _, err = here("check", str(tmp_path / "b.json"), "--add", text)
    assert (code, err.count("\n")) == (2, 1)


def test_a_recipe_is_optional():
    assert parse_point("tiny:tiny-clip") == ("tiny", "tiny-clip", "eager-bf16")


def test_files_that_are_no_baseline(tmp_path, here):
    path = tmp_path / "b.json"
    assert here("check", str(path))[0] == 2
    path.write_text('{"points": []}')
    code, _, err = here("check", str(path))
    assert (code, err.count("\n")) == (2, 1)
    assert "not a baseline" in err
