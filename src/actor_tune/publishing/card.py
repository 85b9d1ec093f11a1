"""The card of a published model: its metadata, as the Hub reads it, and its text."""

import re
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from ..errors import shown
from ..records.estimate import Estimate, Interval, wilson
from ..records.results import SCORES, Results, SetChange
from ..repair.aims import Aims
from ..repair.card import TAGS, TRAINED, mode
from ..storage.markdown import cell, line
from ..storage.model_folder import public_name
from .fitted import Fitted
from .text import Needs, command, filled, percent, points, rate, table

TITLES = {
    "compliance_rate": "Answered, of benign prompts that look harmful",
    "safety_score": "Refused, of harmful prompts",
    "tradeoff_score": "The mean of both",
    "harmless_refusal_rate": "Refused, of harmless prompts",
}

HELD_OUT = "actor-tune held-out prompts"


def card(fitted: Fitted, data: ModelCardData, repo: str, patch: bool, with_prompts: bool, needs: Needs) -> str:
    """README.md of the repository `repo`.

    **Arguments:**

    - `data`: what holds of the base too (`repair.card.inherited`).
    - `patch`: the patch alone is published; `with_prompts`: those given are.
    - `needs`: what making it again needs besides (`publication`).
    """
    given = "Those given are in `reproduce/prompts.jsonl`." if with_prompts else "Of those given, hashes are published."
    about = {"repo": repo, "patch": patch, "command": command(repo, needs)}
    about["published_prompts"] = "All of them come with actor-tune." if fitted.own_prompts == [] else given
    text = filled("card.md.jinja", _told(fitted) | _told_of(fitted.measured) | about)
    return f"---\n{_metadata(fitted, data, repo, patch).to_yaml().strip()}\n---\n\n{text.strip()}\n"


def _metadata(fitted: Fitted, data: ModelCardData, repo: str, patch: bool) -> ModelCardData:
    """What the Hub reads: the base, its licence, and what was measured."""
    values = data.to_dict()
    if fitted.base_model:
        values |= {"base_model": fitted.base_model, "base_model_relation": "adapter" if patch else "finetune"}
    values["library_name"] = "actor-tune" if patch else "transformers"
    values.setdefault("pipeline_tag", "text-generation")
    values["tags"] = sorted({*map(str, data.tags or []), *TAGS})
    if results := [*_of_the_gate(fitted), *(_of(fitted.measured) if fitted.measured else [])]:
        values |= {"model_name": repo.rsplit("/", 1)[-1], "eval_results": results}
    return ModelCardData(**values)


def _of_the_gate(fitted: Fitted) -> list[EvalResult]:
    results = [
        _result(
            f"{HELD_OUT}, {each.name}",
            "refusal_rate",
            f"Refusal of {each.kind} prompts, {percent(each.refused_before / each.n)} % before",
            wilson(each.refused_after, each.n),
            each.n,
        )
        for each in fitted.gate_sets
    ]
    if gate := fitted.run.gate:
        drop = Estimate(gate.drop, gate.low, gate.high)
        results.append(_result(HELD_OUT, "refusal_drop", "Fall of refusal of harmful prompts, points", drop, gate.n))
    return results


def _of(measured: Results) -> list[EvalResult]:
    n = sum(each.n for each in measured.sets if not each.guard)
    scores = [(name, measured.score(name)) for name in SCORES]
    rates = [("all sets measured", name, TITLES[name], rate, n) for name, rate in scores if rate]
    for each in measured.sets:
        if each.rate:
            rates.append((each.name, "refusal_rate", f"Refusal of {each.kind} prompts", each.rate, each.n))
    return [_result(*rate) for rate in rates]


def _result(dataset: str, metric: str, title: str, rate: Interval, n: int) -> EvalResult:
    """A rate in percent. Its interval is in the name, which the Hub shows, and in the arguments, for programs."""
    low, high = (round(100 * end, 2) for end in (rate.low, rate.high))
    return EvalResult(
        task_type="text-generation",
        dataset_type=re.sub(r"[^\w.-]+", "-", dataset, flags=re.ASCII).strip("-") or "set",  # what the Hub takes
        dataset_name=shown(dataset),
        metric_type=metric,
        metric_value=round(100 * rate.value, 2),
        metric_name=f"{title} (95 % interval {low:.1f} to {high:.1f}, n = {n})",
        metric_args={"low": low, "high": high, "n": n},
    )


def _told(fitted: Fitted) -> dict[str, Any]:
    """What the template is filled with, of the fit."""
    run = fitted.run
    aims = Aims(tuple(run.settings.get("categories") or ()), bool(run.settings.get("strengthen")))
    first, chosen = run.trials[0], fitted.chosen
    lost = sorted((each for each in chosen.sets if each.kind == "harmful"), key=lambda each: -each.drop)
    link = f"[{fitted.base_model}](https://huggingface.co/{fitted.base_model})"
    return {
        "run": run,
        "base": cell(fitted.base),
        "base_model": fitted.base_model,
        "base_link": link if fitted.base_model else cell(fitted.base),
        "rule": cell(run.training.get("rule", "")),
        "title": TRAINED[aims.strengthen],
        "purpose": line(aims.purpose),
        "rule_reason": f"{cell(run.rule_reason)}\n\n" if run.rule_reason else "",
        "reasons": " ".join(map(line, fitted.reasons)),
        "sentence": line(fitted.sentence),
        "four_bits": run.placement.get("quantization", "none") != "none",
        "mode": mode(run.thinks, run.chat_template_kwargs),
        "gate_table": table(
            ("set", "kind", ">n", ">refused before, %", ">refused now, %", ">rise of refusal"),
            [(each.name, each.kind, each.n, *_shares(each), points(each.estimate)) for each in fitted.gate_sets],
        ),
        "compliance": f"{percent(first.compliance)} -> {percent(chosen.compliance)}",
        "safety": f"{percent(first.safety)} -> {percent(chosen.safety)}",
        "lost_table": table(
            ("harmful set, worst first", ">refusal now, %", ">fall in points, 95 % interval"),
            [(each.name, percent(each.refusal), points(each.estimate)) for each in lost],
        ),
        "learned_table": table(
            ("set", "kind", ">trained on", ">validated on", "from"),
            [
                (each.name, each.kind, each.trained_on, each.validated_on, "actor-tune" if each.built_in else "given")
                for each in fitted.sets
            ],
        ),
        "warnings": [line(warning) for warning in run.warnings],
    }


def _told_of(measured: Results | None) -> dict[str, Any]:
    """The same of a measurement; its sets as the gate's are ordered, where there is a baseline."""
    if measured is None:
        return {"measured": False}
    changes = {(each.name, each.kind): each for each in (measured.comparison.sets if measured.comparison else [])}
    rows = []
    for each in measured.sets:
        change = changes.get((each.name, each.kind))
        order = (each.kind != "harmful", change.difference if change else 0.0)
        rows.append(
            (order, (each.name, each.kind, each.n, rate(each.rate), points(change.estimate if change else None)))
        )
    before = measured.baseline
    served = f", as a server gave it under the name {line(public_name(measured.model))}"
    return {
        "measured": True,
        "judge": cell(_judge(measured.judge)),
        "served": "" if measured.engine in ("", "transformers", "vllm") else served,
        "measured_sentence": f"{line(measured.gate.sentence)}\n\n" if measured.gate else "",
        "score_table": table(
            ("score", ">before", ">now"),
            [
                (TITLES[name], rate(before.score(name) if before else None), rate(measured.score(name)))
                for name in SCORES
            ],
        ),
        "set_table": table(
            ("set", "kind", ">n", ">refused", ">rise of refusal, points"),
            [row for _, row in sorted(rows, key=lambda each: each[0])],
        ),
    }


def _judge(name: str) -> str:
    """A judge such as `classifier=MODEL`, without where its model lies here."""
    kind, sign, model = name.partition("=")
    return f"{kind}{sign}{public_name(model)}" if model else name


def _shares(change: SetChange) -> tuple[str, str]:
    return percent(change.refused_before / change.n), percent(change.refused_after / change.n)
