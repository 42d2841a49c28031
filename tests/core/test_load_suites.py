"""Overrides and suites: every mistake is one line that names the value."""

import pytest
import yaml

from bench.core.errors import UserError
from bench.core.errors import one_line as displayed
from bench.core.load import (
    headline_point,
    load,
    load_point,
    parse_overrides,
    suite_points,
)
from bench.core.specs.suite import Suite
from support.load import SUITE, one_line, write


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("width=2001-99-99", "denoiser.width: '2001-99-99'"),
        (
            "width=!!int abc",
            "--set width: '!!int abc' is not a YAML value: malformed YAML at line 1",
        ),
        ("width=" + "9" * 5000, "a number of 5000 characters"),
        ("width=" + "[" * 3000, "nested more than 40 deep"),
        ("width=1" + "0" * 30, "width is 1"),
        ("width=400000000000", "at most 1,000,000"),
        ("depth=1000000000", "depth is 1000000000: it must be at least 1 and at most 1,000"),
        ("depth=true", "denoiser.depth: True: input should be a valid integer"),
        ("depth='8'", "denoiser.depth: '8': input should be a valid integer"),
        ("masked_condition=1", "input should be a valid boolean"),
        ("patch_size=[1, 2, true]", "denoiser.patch_size.2: True"),
        ("patch_size=[1, 2, 0]", "patch_size is [1, 2, 0]: each entry must be at least 1"),
        ("mlp_ratio=.inf", "mlp_ratio is inf: it must be at least 0.001 and at most 1,000"),
        ("mlp_ratio=.nan", "mlp_ratio is nan"),
        (
            "num_heads=512",
            "head_dim 5 (width 2560 over num_heads 512): rope positions need an even one",
        ),
        ("vae.in_channels=4", "in_channels is 4: it must be at least 3 and at most 3"),
        ("vae.channels=" + str([8] * 13), "at most 12"),
        ("workload.frames=1000000000001", "frames: 1000000000001"),
        ("workload.height=4000000000000", "height: 4000000000000"),
        ("workload.batch=1" + "0" * 21, "less than or equal to 100000"),
        ("frames=9", "did you mean workload.frames?"),
        ("framse=9", "did you mean workload.frames?"),
        ("dtype=fp16", "did you mean recipe.dtype?"),
        ("res_blocks=1", "did you mean vae.res_blocks?"),
        ("text_encoders=[]", "text_width 4096 with no text_encoders"),
        ("workload=3", "set a field of it: workload.description, workload.frames"),
        ("denoiser=3", "denoiser: 3"),
    ],
)
def test_hostile_overrides(assignment, message):
    line = one_line(
        lambda: load_point("sora-3b", "image-512", "eager-bf16", parse_overrides([assignment]))
    )
    assert message in line
    assert len(line) < 600


@pytest.mark.parametrize(
    "override", [{"denoiser.config.num_layers": 10**9}, {"denoiser.config.ffn_dim": float("inf")}]
)
def test_a_public_class_gets_no_endless_argument(override):
    assert "it must be at most 1" in one_line(
        lambda: load_point("wan2.1-t2v-1.3b", "480p-81f", "eager-bf16", override)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"point_timeout_s": float("inf")}, "point_timeout_s: inf"),
        ({"point_timeout_s": 1e12}, "point_timeout_s: 1000000000000.0"),
        ({"ceilings": "yes please"}, "ceilings: 'yes please'"),
        ({"points": []}, "points: []: "),
        *(
            ({"points": [{**SUITE["points"][0], key: []}]}, f"points.0.{key}: ")
            for key in ("model", "stages")
        ),
        (
            {"points": [{**SUITE["points"][0], "recipe": "a\0/b"}]},
            "points.0 (tiny, tiny-image, a\\x00/b): ",
        ),
        (
            {"points": [{**SUITE["points"][0], "set": {"denoiser.widht": 3}}]},
            (
                "suite mine, points.0 (tiny, tiny-image, eager-fp32): model tiny: --set"
                " denoiser.widht: no field 'widht'; did you "
            ),
        ),
        (
            {"headline": {**SUITE["headline"], "model": "tny"}},
            "suite mine, headline: unknown model 'tny'; did you mean tiny?",
        ),
    ],
)
def test_hostile_suites(tmp_path, change, message):
    path = write(tmp_path, yaml.safe_dump({**SUITE, **change}))

    def both():
        suite = load(Suite, path)
        suite_points(suite)
        headline_point(suite)

    with pytest.raises(UserError) as caught:
        both()
    assert message in displayed(str(caught.value))


def test_a_suite_sets_what_the_command_line_can(tmp_path):
    entry = {
        **SUITE["points"][0],
        "set": {"denoiser.patch_size": [1, 4, 4], "denoiser.rope_axes": None},
    }
    (point,) = suite_points(
        load(Suite, write(tmp_path, yaml.safe_dump({**SUITE, "points": [entry]})))
    )
    assert point.model.denoiser.patch_size == (1, 4, 4)


def test_a_suites_meshes_are_points_of_their_own(tmp_path):
    entry = {"model": "tiny", "workload": "tiny-video", "recipe": "eager"}
    suite = SUITE | {"points": [entry, entry | {"parallel": [{"cfg": 2}, {"ulysses": 2}]}]}
    points = suite_points(load(Suite, write(tmp_path, yaml.safe_dump(suite))))
    assert [p.recipe.parallel and p.recipe.parallel.words() for p in points] == [
        None,
        "cfg 2",
        "ulysses 2",
    ]
    assert len({p.label for p in points}) == 3


def test_all_is_every_mesh_of_the_suites_gpus(tmp_path):
    entry = {"model": "tiny", "workload": "tiny-video", "recipe": "eager", "parallel": "all"}
    suite = load(Suite, write(tmp_path, yaml.safe_dump(SUITE | {"points": [entry], "gpus": 4})))
    meshes = {p.recipe.parallel.words() for p in suite_points(suite)}
    # 4 as one product of cfg (1 or 2), ring, ulysses and tensor: 6 without cfg, 3 beside cfg 2.
    two = {"ring 2 x ulysses 2", "ring 2 x tensor 2", "ulysses 2 x tensor 2"}
    four = {"ring 4", "ulysses 4", "tensor 4"}
    assert meshes == two | four | {f"cfg 2 x {axis} 2" for axis in ("ring", "ulysses", "tensor")}
