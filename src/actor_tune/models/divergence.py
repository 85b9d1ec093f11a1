"""Kullback-Leibler divergence between two models' next-token distributions."""

import torch


def kl(baseline: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
    """KL(baseline || model) in nats of each row of log-probabilities (..., vocabulary) float32: (...)."""
    return (baseline.exp() * (baseline - model)).sum(dim=-1)


def mean_kl(baseline: torch.Tensor, model: torch.Tensor) -> float:
    """The mean of `kl` over all rows."""
    return float(kl(baseline, model).mean())
