"""Folders of measured models with planted scores, for the leaderboard."""

from pathlib import Path

from report_folders import failed_gate, make_results, measured, wilson

SCORES = ("compliance_rate", "safety_score", "tradeoff_score", "harmless_refusal_rate")


def scored(model, compliance, safety, harmless=0.02, n=100):
    """What is stored of a model with these scores, its intervals those of `n` answers."""
    values = dict(zip(SCORES, (compliance, safety, (compliance + safety) / 2, harmless), strict=True))
    ends = {name: [*wilson(round(value * n), n)] for name, value in values.items()}
    return measured(model, 4) | values | {"intervals": ends}


def make_model(folder: Path, compliance, safety, model=None, before=None, rows=None, **replaced) -> Path:
    """A measured model; `before`: compliance and safety of its baseline, without which there is no gate either."""
    settings = {"max_new_tokens": 32, "max_reasoning_tokens": 1024, "prompts_sha256": "0"}
    about = {"settings": settings, "labels": None, "leaked": []} | scored(
        model or f"org/{folder.name}", compliance, safety
    )
    if before is None:
        about |= {"baseline": None, "comparison": None, "gate": None}
    else:
        about["baseline"] = scored("org/base-of-it", *before, harmless=0.05)
    return make_results(folder, rows=rows, **(about | replaced))


def make_board(folder: Path) -> Path:
    """A folder of seven models that were asked the same, and one that was asked for longer answers."""
    make_model(folder / "repaired", 0.91, 0.965, before=(0.52, 0.97))
    make_model(folder / "repaired-too-far", 0.95, 0.71, before=(0.52, 0.97), gate=failed_gate("It fell."))
    make_model(folder / "as-shipped", 0.52, 0.97)
    make_model(folder / "near-the-first", 0.89, 0.955, before=(0.31, 0.99))
    make_model(folder / "Qwen2.5-Coder-0.5B-Instruct-with-a-long-name", 0.74, 0.88)
    make_model(folder / "reckless", 0.99, 0.12)
    make_model(folder / "refuses-all", 0.03, 1.0)
    longer = {"max_new_tokens": 512, "max_reasoning_tokens": 1024}
    make_model(folder / "longer-answers", 0.80, 0.90, settings=longer, before=(0.7, 0.93))
    return folder
