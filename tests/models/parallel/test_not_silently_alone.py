"""A recipe with a mesh is never run or predicted as if it had none."""

import pytest
import torch

from bench.calibrate.evidence.conditions import Conditions
from bench.calibrate.evidence.forecast import forecast
from bench.core.errors import UserError
from bench.core.load import load_point
from bench.measure.device.machine import this_machine
from bench.measure.errors import Unsupported
from bench.measure.points.build import check_supported
from bench.measure.recipes.apply import unsupported
from models.parallel.decode import decode_on_ranks
from models.parallel.mesh import Ranks
from models.parallel.spec import Parallel
from support.models.own import vae

MESH = {"recipe.parallel": {"ulysses": 2}}


def test_one_process_refuses_a_mesh_with_the_reason() -> None:
    point = load_point("tiny", "tiny-video", "eager", MESH)
    with pytest.raises(Unsupported, match="needs a group of 2 ranks, found 1"):
        check_supported(point, torch.device("cpu"))


def test_a_mesh_of_one_rank_is_no_mesh() -> None:
    point = load_point("tiny", "tiny-video", "eager", {"recipe.parallel": {"ulysses": 1}})
    assert not point.recipe.on_several_ranks
    assert unsupported(point.recipe, this_machine(torch.device("cpu"))) is None


def test_one_card_is_not_predicted_in_the_place_of_two() -> None:
    point = load_point("wan2.1-t2v-14b", "720p-81f", "eager", MESH)
    for run in (None, Conditions()):
        with pytest.raises(UserError, match="has a mesh"):
            forecast(point, "h100-sxm", run)


def test_what_a_mesh_excludes_is_an_error() -> None:
    both = MESH | {"recipe.guidance": "packed"}
    with pytest.raises(UserError, match="parallel"):
        load_point("tiny", "tiny-video", "eager", both)


def test_a_decode_in_one_piece_is_not_shared() -> None:
    with pytest.raises(ValueError, match="in one piece; say vae_chunk"):
        decode_on_ranks(vae(), torch.zeros(1), 1, chunk=None, tiling=None, ranks=PAIR)


PAIR = Ranks(group=None, size=2, index=0)


@pytest.mark.parametrize(
    ("degrees", "said"),
    [
        ({"data": 4096, "cfg": 2}, "8,192 ranks; at most 4,096"),
        ({"ulysses": 4, "vae": 3}, "vae 3 does not divide the mesh's ranks, 4"),
        ({"tensor": 2, "shard_weights": True}, "one of the two alone"),
    ],
)
def test_degrees_that_no_mesh_has(degrees: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Parallel(**degrees)
