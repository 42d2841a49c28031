"""A measured result as the explore page finds it."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def results(measured, tmp_path) -> Path:
    """One measured result, calibrated, under the name cpu/real."""
    shutil.copytree(measured[0], tmp_path / "results" / "cpu" / "real")
    return tmp_path / "results"
