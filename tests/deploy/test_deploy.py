"""The templates of deploy/: valid by SkyPilot's own schema where it is installed, and by bash."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
SKY = sorted(path.name for path in DEPLOY.glob("skypilot*.yaml"))


@pytest.mark.parametrize("name", SKY)
def test_a_task_is_valid_by_skypilots_schema(name):
    common_utils = pytest.importorskip("sky.utils.common_utils")
    schemas = pytest.importorskip("sky.utils.schemas")
    config = yaml.safe_load((DEPLOY / name).read_text())
    common_utils.validate_schema(config, schemas.get_task_schema(), f"{name}: ")


@pytest.mark.parametrize("name", SKY)
def test_a_tasks_script_is_bash_and_names_what_it_has(name):
    config = yaml.safe_load((DEPLOY / name).read_text())
    for part in ("setup", "run"):
        subprocess.run(["bash", "-n"], input=config[part], text=True, check=True)
    asked = set(re.findall(r"\$\{?([A-Z][A-Z_]+)", config["run"]))
    given = {variable for variable in asked if not variable.startswith("SKYPILOT_")}
    assert given <= set(config["envs"])


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("*.sh")), ids=lambda path: path.name)
def test_a_script_is_bash(path):
    subprocess.run(["bash", "-n", str(path)], check=True)
