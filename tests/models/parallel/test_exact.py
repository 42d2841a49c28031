"""A model on several ranks computes what it computes alone."""

from pathlib import Path

import pytest

from models.parallel.apply import shape_of
from models.parallel.spec import Parallel, refusal
from support.measure.ranks import on_ranks
from support.models.own import KINDS
from support.models.parallel import (
    ON_FOUR,
    ON_TWO,
    decodes_apart,
    own_config,
    own_steps_apart,
    public_steps_apart,
)
from support.models.zoo_reduced import REDUCED

CLOSE = 1e-5  # float32, of the largest value


FEW = ("cross shared", "dual, single", "factorised", "windowed")


@pytest.mark.parametrize(
    ("ranks", "kinds", "meshes"), [(2, tuple(KINDS), ON_TWO), (4, FEW, ON_FOUR)]
)
def test_own_denoisers_are_exact_on_every_mesh(
    tmp_path: Path, ranks: int, kinds: tuple[str, ...], meshes: tuple
) -> None:
    for answers in on_ranks(ranks, tmp_path, own_steps_apart, list(kinds), list(meshes)):
        for kind in kinds:
            for degrees in meshes:
                parallel = Parallel(**degrees)
                apart = answers[kind, parallel.words()]
                reason = refusal(parallel, shape_of(own_config(kind)))
                assert apart == reason if reason else apart < CLOSE, (kind, parallel.words(), apart)


PLANNED = ("wan2.1-t2v-14b", "wan2.2-t2v-a14b", "wan2.2-ti2v-5b")


def test_public_denoisers_are_exact_or_say_why_not(tmp_path: Path) -> None:
    meshes = [{"ulysses": 2}, {"cfg": 2}]
    for answers in on_ranks(2, tmp_path, public_steps_apart, list(REDUCED), meshes):
        for (name, mesh), apart in answers.items():
            if mesh == "cfg 2" or name in PLANNED:
                assert isinstance(apart, float), (name, mesh, apart)
                assert apart < CLOSE, (name, mesh)


@pytest.mark.parametrize("ranks", [2, 4])
def test_a_decode_in_parts_is_exact(tmp_path: Path, ranks: int) -> None:
    for answers in on_ranks(ranks, tmp_path, decodes_apart, ranks):
        assert all(apart < CLOSE for apart in answers.values()), answers
