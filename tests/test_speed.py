import copy

import pytest
import torch

from actor_tune.models.speed import block_rates
from conftest import CONFIGS
from families import FAMILIES, make_family


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_a_block_is_run_and_not_guessed_in_every_family(family, monkeypatch):
    monkeypatch.setattr("actor_tune.models.speed.measured_rate", None)
    monkeypatch.setattr("actor_tune.models.speed.SECONDS", 0.01)
    rates = block_rates(copy.deepcopy(CONFIGS[family]), "cpu", torch.float32, 8, 20)
    # Whole prompts share the cost of a call among many tokens.
    assert rates.prompts > 2 * rates.steps > 0


def test_where_no_single_block_can_be_run_it_is_told_and_products_are_measured(caplog, monkeypatch):
    monkeypatch.setattr("actor_tune.models.speed._one_block", lambda *_: None)
    monkeypatch.setattr("actor_tune.models.speed.measured_rate", lambda *_: 7.0)
    with caplog.at_level("INFO", "actor_tune"):
        rates = block_rates(make_family("llama").config, "cpu", torch.float32, 2, 4)
    assert (rates.prompts, rates.steps) == (7.0, 7.0)
    assert "estimated from matrix products alone" in caplog.text


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_every_architecture_has_rates(family, monkeypatch):
    monkeypatch.setattr("actor_tune.models.speed.SECONDS", 0.01)
    rates = block_rates(make_family(family).config, "cpu", torch.float32, 4, 8)
    assert rates.prompts > 0
    assert rates.steps > 0
