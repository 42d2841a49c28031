"""A recipe with a mesh is never run or predicted as if it had none."""

import pytest
import torch

from bench.calibrate.evidence.forecast import forecast
from bench.core.errors import UserError
from bench.core.load import load_point
from bench.measure.errors import Unsupported
from bench.measure.points.build import check_supported

MESH = {"recipe.parallel": {"ulysses": 2}}


def test_one_process_refuses_a_mesh_with_the_reason() -> None:
    point = load_point("tiny", "tiny-video", "eager", MESH)
    with pytest.raises(Unsupported, match="parallel needs a group of ranks"):
        check_supported(point, torch.device("cpu"))


def test_a_mesh_of_one_rank_is_no_mesh() -> None:
    point = load_point("tiny", "tiny-video", "eager", {"recipe.parallel": {"ulysses": 1}})
    check_supported(point, torch.device("cpu"))


def test_one_card_is_not_predicted_in_the_place_of_two() -> None:
    point = load_point("wan2.1-t2v-14b", "720p-81f", "eager", MESH)
    with pytest.raises(UserError, match="several ranks"):
        forecast(point, "h100-sxm")


def test_what_a_mesh_excludes_is_an_error() -> None:
    both = MESH | {"recipe.guidance": "packed"}
    with pytest.raises(UserError, match="parallel"):
        load_point("tiny", "tiny-video", "eager", both)
