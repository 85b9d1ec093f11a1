"""Experts of a block: which of them training changed."""

import re

import torch

from .state import State


def experts_changed(before: State, after: State) -> list[bool] | None:
    """Of each expert of a block, whether any of its weights differs; None where the block has none.

    Experts are found by the name that transformers gives them: a list `experts`, or tensors whose first axis is the
    expert where they are fused. Shared experts, which see every token, are not counted.
    """
    found: dict[int, bool] = {}
    for name, old in before.items():
        new = after[name].to(old.dtype)
        if numbered := re.search(r"(?:^|\.)experts\.(\d+)\.", name):
            number = int(numbered[1])
            found[number] = found.get(number, False) or not torch.equal(old, new)
        elif re.search(r"(?:^|\.)experts\.", name) and old.dim() >= 2:
            for number, differs in enumerate((old != new).flatten(1).any(dim=1).tolist()):
                found[number] = found.get(number, False) or differs
    return [found[number] for number in sorted(found)] or None
