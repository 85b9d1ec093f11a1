"""Figures of a fit as they come, for who watches them elsewhere: one function that `fit` calls, adapters by name."""

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import UserError, require_package
from ..progress import Report, no_report

PROJECT = "actor-tune"

log = logging.getLogger(__name__)

Tracker = tuple[Report, Callable[[bool], object]]
"""What takes figures, and what ends it, told whether the fit came to its end."""


def _flat(of: str, figures: Mapping[str, float]) -> dict[str, float]:
    """By names that all trackers take: sets are called as files are, which may be anything."""
    return {re.sub(r"[^\w/.-]", "_", f"{of}/{name}", flags=re.ASCII): value for name, value in figures.items()}


def _tensorboard(folder: Path) -> Tracker:
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter(str(folder.with_name(f"{folder.name}.tensorboard")))

    def report(of: str, figures: Mapping[str, float], step: int) -> None:
        for name, value in _flat(of, figures).items():
            writer.add_scalar(name, value, step)

    return report, lambda _done: writer.close()


def _mlflow(folder: Path) -> Tracker:
    import mlflow

    mlflow.set_experiment(PROJECT)
    mlflow.start_run(run_name=folder.name)

    def report(of: str, figures: Mapping[str, float], step: int) -> None:
        mlflow.log_metrics(_flat(of, figures), step=step)

    return report, lambda done: mlflow.end_run("FINISHED" if done else "FAILED")


def _like_wandb(package: Any, folder: Path) -> Tracker:
    package.init(project=PROJECT, name=folder.name)

    def report(of: str, figures: Mapping[str, float], step: int) -> None:
        # Its own step only grows; ours begin anew with each kind of figure.
        package.log(_flat(of, figures) | {f"{of}/step": step})

    return report, lambda _done: package.finish()


def _wandb(folder: Path) -> Tracker:
    import wandb

    report, _ = _like_wandb(wandb, folder)
    for of in ("train", "strength", "gate"):
        wandb.define_metric(f"{of}/*", step_metric=f"{of}/step")
    return report, lambda done: wandb.finish(exit_code=0 if done else 1)


def _trackio(folder: Path) -> Tracker:
    import trackio

    return _like_wandb(trackio, folder)


TRACKERS: dict[str, Callable[[Path], Tracker]] = {
    "trackio": _trackio,
    "wandb": _wandb,
    "mlflow": _mlflow,
    "tensorboard": _tensorboard,
}


def check_tracker(name: str | None) -> None:
    """Stop where the tracker `name` cannot be had, before anything is begun.

    **Raises:** `UserError` when there is none of this name, or its package is not installed.
    """
    if name is None:
        return
    if name not in TRACKERS:
        raise UserError(f"`log_to={name}`", "no such tracker", f"one of {', '.join(TRACKERS)}", "choose one of them")
    require_package(f"`log_to={name}`", name, name)


@contextmanager
def report_to(name: str | None, folder: str | Path) -> Iterator[Report]:
    """Yield what takes the figures of the fit whose run will be in `folder`, for the tracker `name`; None: nobody.

    TensorBoard's files go into a folder beside it; the others have places of their own.

    ```python
    with at.report_to("trackio", "run") as report:
        at.fit(model, prompts, report=report)
    ```

    **Raises:** `UserError` when there is no such tracker, or its package is not installed.
    """
    check_tracker(name)
    if name is None:
        yield no_report
        return
    report, end = TRACKERS[name](Path(folder))
    done = False
    try:
        yield _forgiving(report, name)
        done = True
    finally:
        end(done)


def _forgiving(report: Report, name: str) -> Report:
    """`report`, until it raises: a fit of an hour is not lost because a tracker's server is."""
    lost: list[Exception] = []

    def forgiving(of: str, figures: Mapping[str, float], step: int) -> None:
        if lost:
            return
        try:
            report(of, figures, step)
        except Exception as error:
            lost.append(error)
            log.warning("%s takes no more figures, the fit goes on: %s", name, error)

    return forgiving
