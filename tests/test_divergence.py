import math

import pytest
import torch

from actor_tune.models.divergence import kl, mean_kl


def test_kl_has_its_known_value():
    baseline = torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log()
    model = torch.tensor([[0.25, 0.75], [0.9, 0.1]]).log()
    expected = 0.5 * math.log(2) + 0.5 * math.log(0.5 / 0.75)
    assert kl(baseline, model).tolist() == pytest.approx([expected, 0], abs=1e-6)
    assert mean_kl(baseline, model) == pytest.approx(expected / 2, abs=1e-6)
    assert mean_kl(baseline, baseline) == 0
