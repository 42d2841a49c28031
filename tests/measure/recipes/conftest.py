"""What the tiny point gives without a technique."""

import pytest
import torch

from support.measure.recipes import outputs


@pytest.fixture(scope="module")
def baseline() -> dict[str, torch.Tensor]:
    return outputs()
