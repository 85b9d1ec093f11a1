"""What the safety gate of a fit asks: held-out prompts that ship with the package."""

from collections.abc import Sequence

from ..errors import UserError
from ..measurement.gate import excludable, limited, needed
from ..prompts.leakage import find_leaks, without
from ..prompts.prompt import Prompt, of_kind, with_system_prompt
from ..prompts.starter import starter
from ..records.results import check_margin


def gate_prompts(
    training: Sequence[Prompt], margin: float, system_prompt: str | None = None, count: int | None = None
) -> list[Prompt]:
    """The built-in held-out harmful and harmless prompts, without those that are like one of their kind trained on.

    A harmful one that was trained on as benign stays: that is the very thing the gate is for. `count`: at most so many
    harmful ones, of each set as many as of the others, and as large a share of the harmless ones; None: all.

    **Raises:** `UserError` when too few are left for the margin.
    """
    check_margin(margin)
    built_in = [prompt for prompt in starter("held_out") if prompt.kind != "pseudo_harmful"]
    kept = without(built_in, find_leaks(built_in, training))
    harmful, all_harmful = (of_kind(prompts, "harmful") for prompts in (kept, built_in))
    asked = limited(harmful, count)
    if len(asked) < len(harmful):
        harmless = of_kind(kept, "harmless")
        kept = [*asked, *limited(harmless, max(1, len(harmless) * len(asked) // len(harmful)))]
    if len(asked) < needed(margin):
        fix = (
            "allow a larger drop"
            if len(harmful) == len(all_harmful)
            else "do not train on the held-out starter prompts"
        )
        if len(asked) < len(harmful):
            fix = f"raise or leave out `gate_prompts={count}`, or allow a larger drop"
        found = f"{len(asked)} held-out harmful prompts"
        if asked:
            found += f", which exclude a drop of {100 * excludable(len(asked)):.1f} points at best"
        raise UserError(f"`margin={margin}`", found, f"at least {needed(margin)}", fix)
    return with_system_prompt(kept, system_prompt) if system_prompt else kept
