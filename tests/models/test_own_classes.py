"""A user's own classes: counted by hand, built with values, and imported only where named."""

import shutil
import sys

import pytest
import torch

from bench.core.errors import UserError
from bench.core.load import load, load_point
from bench.core.specs.model import Model
from bench.core.specs.point import Point
from bench.core.user.code import name_yaml
from bench.count.point import count_point
from bench.measure.points.build import build_calls
from models.python import imports
from support.paths import OWN_CLASS, write_files


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The example, outside the repository; nothing was imported or named before."""
    copied = write_files(OWN_CLASS, tmp_path / "mine")
    monkeypatch.setattr(imports, "_leave", {})
    monkeypatch.setattr("bench.core.user.code._named", set())
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("my_dit", "adapter"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield copied
    for name in ("my_dit", "adapter", "my_layers"):
        sys.modules.pop(name, None)


def point(folder, **overrides):
    name_yaml(folder / "my-dit.yaml")
    return load_point(
        str(folder / "my-dit.yaml"), "tiny-video", "eager-fp32", overrides, ("denoise_step",)
    )


def test_flops_of_the_example_by_hand(folder):
    # latents (4, 9, 16, 16), patches of 1 x 2 x 2: N = 9 * 8 * 8 = 576 tokens, D = 128, 4 blocks
    tokens, d, blocks = 576, 128, 4
    per_block = 2 * tokens * d * (3 * d + d + 4 * d + 4 * d) + 2 * d * 6 * d  # qkv out up down; c
    text = 2 * 16 * 64 * d  # 16 text tokens of width 64
    expected = blocks * per_block + text + 2 * d  # the time is one number
    patch = 2 * tokens * d * 4 * 4  # 4 channels, 1 x 2 x 2; the head is as large
    forward = count_point(point(folder)).stages["forward"]
    assert forward.linear_flops == expected
    assert forward.conv_flops == 2 * patch
    assert forward.attention_flops == blocks * 2 * 2 * tokens * tokens * d


def test_no_closed_form_and_two_counters_agree(folder):
    check = count_point(point(folder)).cross_check
    assert check["closed_form"] is None
    assert check["fvcore"] == check["torch_flop_counter"] > 0


def test_it_runs_with_finite_numbers_and_the_same_ones_each_time(folder):
    asked = point(folder)
    with torch.inference_mode():
        first, second = (
            build_calls(asked, torch.device("cpu"))[0]["denoise_step"]() for _ in range(2)
        )
    assert torch.isfinite(first).all()
    assert torch.equal(first, second)


@pytest.mark.parametrize("recipe", ["compiled-regional", "whole-step"])
def test_recipes_work_as_for_others(folder, recipe):
    name_yaml(folder / "my-dit.yaml")
    known = {"compiled-regional": {"recipe.compile": "regional"}, "whole-step": {}}
    stages = ("denoise_step",)
    asked = load_point(str(folder / "my-dit.yaml"), "tiny-video", "eager-fp32", known[recipe])
    calls, _ = build_calls(asked.model_copy(update={"stages": stages}), torch.device("cpu"))
    if recipe == "compiled-regional":
        from models.denoiser import blocks_of
        from models.python.build import build

        made = build(asked.model.denoiser, torch.device("meta"), torch.float32)
        assert len(blocks_of(made)) == 4  # `blocks: layers` names them
    assert set(calls) >= {"forward", "denoise_step"}


def test_a_yaml_that_nobody_named_imports_nothing(folder):
    (folder / "my_dit.py").write_text("raise SystemExit('imported')")
    model = load(Model, str(folder / "my-dit.yaml"))  # as a table or a stored suite would
    assert model.denoiser.python == "my_dit:MyDiT"
    asked = load_point(str(folder / "my-dit.yaml"), "tiny-video", "eager-fp32")
    with pytest.raises(UserError, match="named on the command line"):
        count_point(asked)


def test_a_stored_point_imports_nothing(folder):
    stored = point(folder).model_dump(mode="json")
    imports._leave.clear()
    assert "my_dit" not in sys.modules
    with pytest.raises(UserError, match="named on the command line"):
        count_point(Point.model_validate(stored))
    assert "my_dit" not in sys.modules


def test_a_stored_point_of_other_code_imports_nothing(folder):
    stored = point(folder).model_dump(mode="json")
    stored["model"]["denoiser"]["python"] = "os:getcwd"
    with pytest.raises(UserError, match="named on the command line"):
        count_point(Point.model_validate(stored))


def test_the_fingerprint_follows_the_code_and_what_it_imports_beside_it(folder):
    before = point(folder)
    text = (folder / "my_dit.py").read_text()
    (folder / "my_layers.py").write_text("WIDTH = 128\n")
    (folder / "my_dit.py").write_text("from my_layers import WIDTH\n" + text)
    with_import = point(folder)
    (folder / "my_layers.py").write_text("WIDTH = 256\n")
    changed = point(folder)
    (folder / "unrelated.py").write_text("x = 1\n")
    assert len({before.fingerprint, with_import.fingerprint, changed.fingerprint}) == 3
    assert point(folder).fingerprint == changed.fingerprint


def test_a_file_that_changes_after_it_was_loaded_is_not_run(folder):
    asked = point(folder)
    with (folder / "my_dit.py").open("a") as file:
        file.write("# changed\n")
    with pytest.raises(UserError, match="changed since it was loaded"):
        count_point(asked)


def test_two_folders_may_each_hold_a_module_of_one_name(folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    text = (other / "my_dit.py").read_text().replace("depth=4", "depth=4, extra=0")
    (other / "my_dit.py").write_text(text.replace("4 * width", "2 * width"))
    first = count_point(point(folder)).stages["forward"].linear_flops
    second = count_point(point(other)).stages["forward"].linear_flops
    assert second < first == count_point(point(folder)).stages["forward"].linear_flops


BREAKS = {
    "import": ("my_dit.py", "import torch.nn", "import torchh.nn", r"my_dit\.py:3: ModuleNotFound"),
    "syntax": ("my_dit.py", "import torch.nn", "import + torch.nn", r"my_dit\.py:3: SyntaxError"),
    "signature": ("adapter.py", ", context)\n", ")\n", r"adapter\.py:11, in forward: TypeError"),
    "missing": ("adapter.py", "def example_", "def any_", r"forward takes context too: write exam"),
    "misspelt": ("adapter.py", "def forward", "def foward", r"has foward\(\), and no forward\(\)"),
    "shape": ("my_dit.py", "(1, 2, 2), (1, 2, 2))\n\n", "(1, 4, 4), (1, 4, 4))\n\n", "gives"),
    "raise": ("my_dit.py", "grid = self.patch(latents)", "1 / 0", r"\.py:37, in forward: ZeroDiv"),
    "item": ("my_dit.py", "grid = ", "latents.sum().item(); grid = ", r"my_dit\.py:37, in forward"),
    "rule": (
        "my_dit.py",
        "grid = ",
        "F.grid_sample(latents, latents.new_zeros(latents.shape[0], 1, 1, 1, 3)); grid = ",
        r"my_dit\.py:37, in forward: UncountedOperator: operator aten::grid_sampler_3d",
    ),
    "class": ("my_dit.py", "class MyDiT", "class YourDiT", "it has no MyDiT"),
}


@pytest.mark.parametrize("kind", BREAKS)
def test_a_mistake_is_one_line_with_its_file_and_line(folder, kind):
    name, old, new, said = BREAKS[kind]
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=said) as caught:
        count_point(point(folder))
    assert "\n" not in str(caught.value)


def test_an_argument_that_the_class_does_not_take(folder):
    with pytest.raises(UserError, match=r"my_dit\.py:27, class MyDiT: TypeError.*'widht'"):
        count_point(point(folder, **{"denoiser.config.widht": 3}))


@pytest.mark.parametrize("reference", ["no_such:X", "os", "my_dit:", "my dit:X", "../x:Y"])
def test_a_reference_that_names_nothing(folder, reference):
    with pytest.raises(UserError, match="expected package.module:Name|no module|which class"):
        point(folder, **{"denoiser.python": reference})


VAE = '''
import torch
from torch import nn


class MyVAE(nn.Module):
    """8 x in height and width, none in time."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv3d(3, 8, (1, 4, 4), (1, 4, 4))
        self.up = nn.ConvTranspose3d(4, 3, (1, 4, 4), (1, 4, 4))

    def encode(self, video):
        return self.down(video).chunk(2, 1)

    def decode(self, latents):
        return self.up(latents)


class MyText(nn.Module):
    def __init__(self, vocabulary=100, width=128):
        super().__init__()
        self.table = nn.Embedding(vocabulary, width)
        self.out = nn.Linear(width, width)

    def forward(self, embeddings):
        tokens = torch.zeros(embeddings.shape[:2], dtype=torch.long, device=embeddings.device)
        return self.out(self.table(tokens))
'''
WHOLE = """
extends: tiny
description: a VAE and a text encoder of my own beside an own DiT
source: parts.py
vae:
  python: parts:MyVAE
  latent_channels: 4
  spatial_factor: 4
  temporal_factor: 1
  first_frame_alone: false
text_encoders:
  - {python: "parts:MyText", tokens: 64, width: 128}
"""


def test_a_vae_and_a_text_encoder_of_ones_own(folder):
    (folder / "parts.py").write_text(VAE)
    (folder / "whole.yaml").write_text(WHOLE)
    name_yaml(folder / "whole.yaml")
    stages = ("denoise_step", "vae_decode", "text_encode")
    asked = load_point(str(folder / "whole.yaml"), "tiny-video", "eager-fp32", {}, stages)
    counted = count_point(asked).stages
    frames, pixels, latents = 33, 64 * 64, 16 * 16
    assert counted["vae_decode"].conv_flops == 2 * frames * latents * 4 * 3 * 16
    assert counted["vae_encode"].conv_flops == 2 * frames * pixels // 16 * 8 * 3 * 16
    assert counted["text_encode"].linear_flops == 2 * 64 * 128 * 128  # of one prompt
    calls, _ = build_calls(asked, torch.device("cpu"))
    with torch.inference_mode():
        assert calls["vae_decode"]().shape == (1, 3, frames, 64, 64)
        assert torch.isfinite(calls["text_encode"]()[0]).all()
