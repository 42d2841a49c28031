"""A model on several ranks computes what it computes alone."""

from pathlib import Path

import pytest

from models.parallel.apply import shape_of
from models.parallel.spec import Parallel, refusal
from support.measure.ranks import on_ranks
from support.models.parallel import (
    ON_FOUR,
    ON_TWO,
    gathered_weights,
    own_apart,
    own_config,
    public_steps_apart,
)

CLOSE = 1e-5  # float32, of the largest value


MANY = ("plain", "sincos", "pooled", "cross", "dual", "control joint", "masked")
FEW = ("cross shared", "dual, single", "factorised", "windowed")


@pytest.mark.parametrize(("ranks", "kinds", "meshes"), [(2, MANY, ON_TWO), (4, FEW, ON_FOUR)])
def test_models_are_exact_on_every_mesh(
    tmp_path: Path, ranks: int, kinds: tuple[str, ...], meshes: tuple
) -> None:
    """One group of processes shows all of it: starting one takes longer than what it computes."""
    for steps, decodes in on_ranks(ranks, tmp_path, own_apart, list(kinds), list(meshes)):
        assert all(apart < CLOSE for apart in decodes.values()), decodes
        for kind in kinds:
            for degrees in meshes:
                parallel = Parallel(**degrees)
                apart = steps[kind, parallel.words()]
                reason = refusal(parallel, shape_of(own_config(kind)))
                assert apart == reason if reason else apart < CLOSE, (kind, parallel.words(), apart)


PLANNED = ("wan2.1-t2v-14b", "wan2.2-t2v-a14b", "wan2.2-ti2v-5b")
REFUSED = {
    "cogvideox-5b": "has no context-parallel plan for CogVideoXTransformer3DModel",
    "ltx-video-2b": "fails on its text mask",
    "ltx-2": "diffusers issue 14316",
}


def test_public_denoisers_are_exact_or_say_why_not(tmp_path: Path) -> None:
    meshes = [{"ulysses": 2}, {"cfg": 2}]
    names = [*PLANNED, *REFUSED]
    for answers in on_ranks(2, tmp_path, public_steps_apart, names, meshes):
        for name in names:
            assert answers[name, "cfg 2"] < CLOSE, name
        for name in PLANNED:
            assert answers[name, "ulysses 2"] < CLOSE, name
        for name, reason in REFUSED.items():
            assert reason in answers[name, "ulysses 2"]


def test_sharded_weights_send_what_is_counted(tmp_path: Path) -> None:
    for seen, counted in on_ranks(2, tmp_path, gathered_weights):
        assert seen == counted
        assert counted
