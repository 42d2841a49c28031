"""--device cuda:N: the measuring process sees that card alone."""

import pytest

from bench.commands.parts.options import check_device
from bench.core.errors import EnvironmentFault, UserError
from bench.measure.worker.process import Worker, _only_card


def test_a_card_is_chosen_among_the_visible_ones(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert _only_card(None) == _only_card("cuda") == _only_card("cpu") == {}
    assert _only_card("cuda:3") == {"CUDA_VISIBLE_DEVICES": "3"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    assert _only_card("cuda:1") == {"CUDA_VISIBLE_DEVICES": "GPU-b"}
    with pytest.raises(EnvironmentFault, match="cuda:2: CUDA_VISIBLE_DEVICES names 2"):
        _only_card("cuda:2")


def test_the_process_is_told_the_kind_of_device_alone():
    with Worker("cuda:3") as worker:
        assert worker._module()[-2:] == ["--device", "cuda"]


@pytest.mark.parametrize("device", [None, "cpu", "cuda", "cuda:0", "cuda:12"])
def test_devices(device):
    check_device(device)


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:a", "cpu:1", "cuda:-1"])
def test_what_is_no_device(device):
    with pytest.raises(UserError, match="is not one of cpu, cuda, cuda:N"):
        check_device(device)
