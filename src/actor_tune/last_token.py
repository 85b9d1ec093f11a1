"""Skip what a block computes for tokens other than the last, when only its last position is read.

Most of a block works on each token alone (norms, projections, feed-forward); attention needs keys and values of all
tokens but one query. Which submodules may see the last token only is found by trial, not from a table of families:
a submodule is cut down, the block is run, and the cut stays only if the last position comes out the same.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

log = logging.getLogger(__name__)

RunBlock = Callable[[], torch.Tensor]


@contextmanager
def last_token_only(block: nn.Module, run: RunBlock) -> Iterator[list[str]]:
    """Cut down every submodule of `block` that can be; the list has their names.

    **Arguments:**

    - `block`: in float32, so that rounding does not hide or feign a difference.
    - `run`: runs the block on real inputs of several tokens and returns its last position, (prompt, d_model).
    """
    with torch.no_grad():
        plain = run()
    tolerance = 1e-4 * float(plain.abs().max())
    cut: list[str] = []
    with ExitStack() as hooks:
        waiting = list(block.named_children())
        while waiting:
            name, module = waiting.pop(0)
            handle = module.register_forward_pre_hook(_keep_last_token, with_kwargs=True)
            if _same(run, plain, tolerance):
                hooks.callback(handle.remove)
                cut.append(name)
            else:
                handle.remove()
                waiting += [(f"{name}.{child_name}", child) for child_name, child in module.named_children()]
        if not cut:
            log.info("no part of %s can be limited to the last token; training runs it whole", type(block).__name__)
        yield cut


def _same(run: RunBlock, plain: torch.Tensor, tolerance: float) -> bool:
    try:
        with torch.no_grad():
            short = run()
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, IndexError):
        return False  # The parts around it do not fit an input of one token: it must see all of them.
    return short.shape == plain.shape and float((short - plain).abs().max()) <= tolerance


def _keep_last_token(_module: nn.Module, arguments: Any, keywords: Any) -> Any:
    if arguments and _is_hidden(arguments[0]):
        return (arguments[0][:, -1:], *arguments[1:]), keywords
    if _is_hidden(keywords.get("hidden_states")):
        return arguments, keywords | {"hidden_states": keywords["hidden_states"][:, -1:]}
    return None


def _is_hidden(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() == 3
