"""The example of docs/add-a-class-of-your-own.md, run as a user does, outside the repository."""

import json
import re
import shutil

import pytest

from support.cli import cli
from support.paths import OWN_CLASS, write_files

SUITE = """
description: my model on a CPU
ceilings: true
sampling: {target_relative_half_width: 0.2, min_samples: 5, max_samples: 20, max_s: 1}
point_timeout_s: 120
dtype: fp32
points:
  - model: FOLDER/my-dit.yaml
    workload: [tiny-video, tiny-clip]
    recipe: eager
    stages: [denoise_step, vae_decode, text_encode]
headline: {model: FOLDER/my-dit.yaml, workload: tiny-video, recipe: eager}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    copied = write_files(OWN_CLASS, tmp_path_factory.mktemp("user") / "mine")
    (copied / "suite.yaml").write_text(SUITE.replace("FOLDER", str(copied)))
    return copied


@pytest.fixture(scope="module")
def result(folder):
    done = cli("run", "suite.yaml", "--device", "cpu", "--out", "results", cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_it_is_measured_whole_and_calibrated(folder, result):
    assert result["outcomes"]["ok"] == 3  # the ceilings are one
    assert result["headline"]["provenance"] == "measured"
    records = (folder / result["result_dir"] / "records.jsonl").read_text()
    assert str(folder) not in records  # no path of the machine
    assert '"python":"my_dit:MyDiT"' in records


@pytest.mark.slow
def test_it_is_predicted_from_its_own_calibration(folder, result):
    asked = ("predict", "my-dit.yaml", "-w", "tiny-clip", "--calibration", result["result_dir"])
    done = cli(*asked, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["provenance"] in ("fitted", "extrapolated")


@pytest.mark.slow
def test_versus_an_own_dit_of_the_same_shape(folder):
    asked = ("versus", "my-dit.yaml", "tiny", "-w", "tiny-clip", "--recipe", "eager", "--json")
    same = ("--set", "recipe.dtype=fp32", "--set-b", "denoiser.width=128", "--rounds", "6")
    done = cli(*asked, *same, "--device", "cpu", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["flops_equal"]


@pytest.mark.slow
def test_a_stored_result_imports_nothing(folder, result):
    directory = folder / result["result_dir"]
    (folder / "my_dit.py").rename(folder / "kept.py")
    (folder / "my_dit.py").write_text("open('imported', 'w').close()\n")
    try:
        for command in ("report", "compare", "verify"):
            both = (str(directory),) * (2 if command == "compare" else 1)
            assert "Traceback" not in cli(command, *both, cwd=folder).stderr
        assert not (folder / "imported").exists()
    finally:
        (folder / "kept.py").replace(folder / "my_dit.py")


@pytest.mark.slow
def test_numbers_that_are_not_finite_name_the_class_and_exit_with_2(folder, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken, ignore=shutil.ignore_patterns("results"))
    text = (broken / "my_dit.py").read_text()
    nan = text.replace("x = grid.flatten", "x = float('nan') * grid.flatten")
    (broken / "my_dit.py").write_text(nan)
    suite = SUITE.replace("FOLDER", str(broken)).replace("ceilings: true", "ceilings: false")
    (broken / "suite.yaml").write_text(suite)
    done = cli("run", "suite.yaml", "--device", "cpu", "--out", "results", cwd=broken)
    assert done.returncode == 2
    last = [line for line in done.stderr.splitlines() if line.startswith("error: ")][-1]
    assert "my_dit.py:27" in last
    assert "not finite" in last
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["profile", "versus", "loadgen"])
def test_a_class_that_fails_on_real_tensors_alone_names_its_line(folder, tmp_path, here, command):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken, ignore=shutil.ignore_patterns("results"))
    text = (broken / "my_dit.py").read_text()
    fails = text.replace("grid = self", "assert latents.is_meta, 'meta only'; grid = self")
    (broken / "my_dit.py").write_text(fails)
    model = str(broken / "my-dit.yaml")
    models = [model, model] if command == "versus" else [model]
    how = ("-w", "tiny-image", "--recipe", "eager", "--set", "recipe.dtype=fp32", "--device", "cpu")
    out = () if command == "versus" else ("--out", str(tmp_path / "out"))
    code, _, err = here(command, *models, *how, *out)
    assert code == 2
    last = err.splitlines()[-1]
    assert re.search(r"error: .*my_dit\.py:\d+, in forward: AssertionError: meta only", last), last


@pytest.mark.slow
def test_a_class_that_cannot_be_built_ends_the_run_before_anything_is_measured(folder, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken, ignore=shutil.ignore_patterns("results"))
    (broken / "my_dit.py").write_text("import no_such_module\n")
    (broken / "suite.yaml").write_text(SUITE.replace("FOLDER", str(broken)))
    done = cli("run", "suite.yaml", "--device", "cpu", "--out", "results", cwd=broken)
    assert done.returncode == 2
    assert "my_dit.py:1: ModuleNotFoundError" in done.stderr
    assert not (broken / "results").exists()
    told = cli("count", "my-dit.yaml", "-w", "tiny-clip", "--verbose", cwd=broken)
    assert "Traceback" in told.stderr
