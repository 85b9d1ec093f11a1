"""General ability, through lm-evaluation-harness: MMLU and the like, before and after (extra `lm-eval`)."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

BATCH_SIZE = 8
"""lm-eval's own search for one tries 64 prompts of the model's greatest length at once, too many for a CPU."""

BOOTSTRAPS = 1000
"""For the standard errors of metrics that are not means; those of means need none."""


def check_tasks(tasks: Sequence[str], own_tasks: Path | None = None) -> "TaskManager":
    """lm-eval's index of tasks, in which all of `tasks` are: asked before anything that takes long.

    **Raises:** `UserError` when lm-eval is not installed or a task is unknown.
    """
    try:
        from lm_eval.models.huggingface import HFLM  # noqa: F401 - what it lacks is told now, not after all answers
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        fix = "run: pip install 'actor-tune[lm-eval]'"
        raise UserError("`lm_eval=`", f"lm-eval cannot be used here ({error})", "the package lm-eval", fix) from None
    manager = TaskManager(include_path=str(own_tasks) if own_tasks else None)
    for task in tasks:
        if not manager.match_tasks([task]):
            fix = "run `lm-eval ls tasks` for those it has"
            raise UserError(f"`lm_eval={task}`", "unknown to lm-eval", "the name of a task or a group", fix)
    return manager


def run_lm_eval(
    model_folder: Path, tasks: Sequence[str], limit: int | None, device: str, own_tasks: Path | None = None
) -> dict[str, dict[str, float]]:
    """Task -> metric -> value, with `..._stderr` beside each metric that has one, as lm-eval computes them.

    Metrics have lm-eval's names (`acc`, `acc_norm` ...); where a task filters answers, the filter follows the name:
    `exact_match,strict-match`. A group such as `mmlu` is listed with its tasks.

    **Arguments:**

    - `limit`: at most so many questions of each task; None for all.
    - `own_tasks`: a folder with yaml files that define further tasks.

    **Raises:** `UserError` when lm-eval is not installed, a task is unknown, or its questions cannot be had.
    """
    manager = check_tasks(tasks, own_tasks)
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=str(model_folder), device=device, batch_size=BATCH_SIZE)
    try:
        evaluated = lm_eval.simple_evaluate(
            model=model,
            tasks=list(tasks),
            limit=limit,
            task_manager=manager,
            log_samples=False,
            bootstrap_iters=BOOTSTRAPS,
        )
    except OSError as error:  # the model is loaded, so this is the questions
        found = f"its questions cannot be had ({str(error).splitlines()[0]})"
        fix = "run it once with a connection: they are then kept for the next time"
        where = f"`lm_eval={','.join(tasks)}`"
        raise UserError(where, found, "a connection to the Hugging Face Hub", fix) from error
    return {task: _numbers(values) for task, values in evaluated["results"].items()}


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    """Without what is no number: the task's title, and standard errors that lm-eval gives as "N/A"."""
    numbers = {name: value for name, value in values.items() if isinstance(value, float) and math.isfinite(value)}
    return {name.removesuffix(",none"): value for name, value in numbers.items()}
