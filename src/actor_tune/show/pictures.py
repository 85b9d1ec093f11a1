"""Pictures of positions along the refusal direction, as PNG files."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import require_package
from ..prompts.prompt import KINDS, Prompt
from ..records.run import PromptPath
from ..storage.files import replacing
from .text import CHANCES, COLOURS, within_chances

if TYPE_CHECKING:  # it brings torch with it
    from ..repair.method import FittedBlock


def draw_fit(folder: Path, block: "FittedBlock") -> list[Path]:
    """Draw into `folder` where the prompts lie that were kept aside from training, and one of each kind block by block.

    **Raises:** `UserError` when matplotlib is not installed.
    """
    rows = [row for row, aside in enumerate(block.validation) if aside]
    before, after = ([values[row] for row in rows] for values in (block.before, block.after))
    prompts = [block.prompts[row] for row in rows]
    pictures = [folder / "projections.png", folder / "paths.png"]
    draw_positions(pictures[0], prompts, before, after, title="Validation prompts along the refusal direction")
    draw_paths(pictures[1], block.paths, block.layer)
    return pictures


def draw_positions(
    path: Path, prompts: Sequence[Prompt], before: Sequence[float], after: Sequence[float], title: str
) -> None:
    """Draw where each kind lies along the refusal direction before and after, one dot a prompt, as a PNG.

    **Raises:** `UserError` when matplotlib is not installed.
    """
    figure = new_figure(path, 9, 4.2)
    panels = figure.subplots(2, 1, sharex=True)
    for panel, name, values in zip(panels, ("before", "after"), (before, after), strict=True):
        for height, kind in enumerate(KINDS):
            points = [value for value, prompt in zip(values, prompts, strict=True) if prompt.kind == kind]
            # A fixed spread by rank keeps dots apart without chance.
            heights = [height + 0.3 * ((7 * index % 11) / 5 - 1) for index in range(len(points))]
            panel.scatter(points, heights, s=9, alpha=0.5, color=COLOURS[kind], linewidths=0)
            mean = sum(points) / len(points)
            panel.plot([mean, mean], [height - 0.42, height + 0.42], color=COLOURS[kind], linewidth=2.5)
        panel.set_yticks(range(len(KINDS)), [kind.replace("_", "-") for kind in KINDS])
        panel.set_title(name, loc="left", fontsize=10)
        panel.axvline(0, color="0.6", linewidth=0.8, zorder=0)
        panel.axvline(1, color="0.6", linewidth=0.8, linestyle="--", zorder=0)
        panel.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("position along the refusal direction: 0 harmless mean, 1 harmful mean of the unedited model")
    figure.suptitle(title, fontsize=11)
    save_figure(figure, path)


def draw_paths(path: Path, paths: Sequence[PromptPath], layer: int) -> None:
    """Draw a prompt of each kind block by block: where it lies, and how likely its refusal is, before and after.

    `layer` is the trained block.

    **Raises:** `UserError` when matplotlib is not installed.
    """
    figure = new_figure(path, 9, 2.1 * len(paths) + 0.6)
    panels = figure.subplots(len(paths), 2, sharex=True, squeeze=False)
    for (left, right), shown in zip(panels, paths, strict=True):
        _draw_course(left, shown, shown.position_before, shown.position_after, layer)
        before, after = ([*map(within_chances, chances)] for chances in (shown.refusal_before, shown.refusal_after))
        _draw_course(right, shown, before, after, layer)
        left.set_ylabel(shown.kind.replace("_", "-"))
        right.set_yscale("logit")
        right.set_ylim(CHANCES[0], CHANCES[-1])
        right.set_yticks(CHANCES, [f"{100 * chance:g} %" for chance in CHANCES])
        right.minorticks_off()
    panels[0][0].set_title("position along each block's refusal direction", loc="left", fontsize=10)
    panels[0][1].set_title("chance of refusal, as if that block were the last", loc="left", fontsize=10)
    panels[0][0].legend(frameon=False, fontsize=8)
    for panel in panels[-1]:
        panel.set_xlabel("block")
    figure.suptitle(f"One prompt of each kind on its way through the blocks; block {layer} was trained", fontsize=11)
    save_figure(figure, path)


def _draw_course(panel: Any, shown: PromptPath, before: Sequence[float], after: Sequence[float], layer: int) -> None:
    panel.plot(before, "--", color=COLOURS[shown.kind], linewidth=1.2, label="before")
    panel.plot(after, color=COLOURS[shown.kind], linewidth=1.8, label="after")
    panel.axvline(layer, color="0.6", linewidth=0.8, linestyle=":", zorder=0)
    panel.spines[["top", "right"]].set_visible(False)


def save_figure(figure: Any, path: Path) -> None:
    """Write `figure` to `path` as a PNG."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def new_figure(path: Path, width: float, height: float) -> Any:
    """An empty matplotlib figure, `width` by `height` inches, that can be saved at `path` without a display.

    **Raises:** `UserError` when matplotlib is not installed.
    """
    require_package(str(path), "matplotlib", "plot")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
