"""What a search found, for the terminal."""

from rich.table import Table

from ..records.estimate import points
from ..records.tune import StudyTrial, Tuning

COLUMNS = ("trial", "block", "strength", "compliance", "safety", "trade-off", "harmless refused", "within limits")

SHOWN = 8
"""Trials in the table, the best by trade-off score."""


def trials_table(tuning: Tuning) -> Table:
    """The trials of the highest trade-off scores, on the prompts that were searched by."""
    title = f"The best of {len(tuning.trials)} trials, by the search's own prompts, %"
    table = Table(title=title, show_edge=False, pad_edge=False)  # so that it fits into 80 columns
    for name in COLUMNS:
        table.add_column(name, justify="right", no_wrap=" " not in name)
    asked = [trial for trial in tuning.trials if trial.trade_off is not None]
    for trial in sorted(asked, key=lambda trial: -(trial.trade_off or 0))[:SHOWN]:
        table.add_row(*_row(trial, trial.number == tuning.taken))
    return table


def _row(trial: StudyTrial, is_taken: bool) -> list[str]:
    changes, rates = trial.settings["changes"], {rate.name: rate.after for rate in trial.answers or []}
    numbers = (rates["compliance"], rates["safety"], trial.trade_off or 0.0, rates["harmless refused"])
    return [
        f"{trial.number}{' *' if is_taken else ''}",
        f"{trial.settings['layer']}",
        f"{changes['strength']:.2f}",
        *(f"{100 * number:.1f}" for number in numbers),
        "no" if trial.broken else "yes",
    ]


def tuning_told(tuning: Tuning) -> str:
    """What was taken, how much better the search thought of it than fresh prompts do, and by how much that is usual."""
    lines = [f"{tuning.sentence}."]
    for rate in tuning.compared[1:]:
        own = f"{rate.name}: {100 * rate.before:.1f} before, {100 * rate.searched:.1f} by the search"
        lines.append(f"  {own}, {points(rate.fresh)} by {rate.fresh_n} fresh prompts")
    if tuning.optimism:
        found = tuning.optimism
        lines.append(
            f"To choose the best of {found.trials} trials by {found.prompts} prompts makes a trade-off score look "
            f"{100 * found.trade_off:.1f} points better than it is, by choosing {found.choices} times by some of them."
        )
    return "\n".join(lines)
