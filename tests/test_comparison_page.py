"""The page's sentences from planted records, and what the experiments behind it learn from."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

from actor_tune.chat import encode
from actor_tune.lora import Adapter, adapted
from actor_tune.prompts import Prompt


def tool(name):
    sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def page():
    return tool("make_comparison_page")


def method(name, compliance, safety, kl, points):
    score = (compliance + safety) / 2
    rates = {"compliance_rate": compliance, "safety_score": safety, "tradeoff_score": score}
    return {
        "method": name,
        **rates,
        "intervals": {key: [value - 0.05, value + 0.05] for key, value in rates.items()},
        "kl_harmless": kl,
        "strengths": [1.0],
        "within_limits": 1,
        "seconds": 20.0,
        "garbled_share": 0.0,
        "figures": {},
        "curve": [{"strength": s, "compliance": c, "safety": 0.9, "kl_harmless": k} for s, c, k in points],
    }


def outcome(name, seed, compliance, safety, **more):
    """What one seed came to."""
    rates = {"compliance_rate": compliance, "safety_score": safety, "tradeoff_score": (compliance + safety) / 2}
    return {"method": name, "seed": seed, "scores": {key: {"value": value} for key, value in rates.items()}, **more}


def record(rival, seeds=((0.8, 0.6), (0.81, 0.61), (0.79, 0.59))):
    """ACTOR, the default and `rival`, with the compliance of ACTOR and of the rival at each seed."""
    ours = method("actor", 0.8, 0.9, 0.05, [(0.0, 0.4, 0.0), (1.0, 0.8, 0.04)])
    outcomes = []
    for seed, (own, other) in enumerate(seeds):
        outcomes.append(outcome("actor", seed, own, 0.9, strength=1.0, curve=ours["curve"]))
        outcomes.append(outcome(rival["method"], seed, other, rival["safety_score"]))
    return {"methods": [method("default", 0.3, 0.9, 0.0, []), ours, rival], "outcomes": outcomes}


@pytest.mark.parametrize(
    ("seeds", "safety", "said"),
    [
        (((0.8, 0.6), (0.81, 0.61), (0.79, 0.59)), 0.88, "better safety: met."),
        (((0.8, 0.6), (0.9, 0.45), (0.7, 0.75)), 0.88, "met in the mean of the seeds, **not shown**"),
        (((0.8, 0.79), (0.81, 0.8), (0.79, 0.78)), 0.89, "**missed**"),
        (((0.8, 0.5), (0.81, 0.51), (0.79, 0.49)), 0.95, "the score is met, equal safety is **missed**."),
        (((0.8, 0.5),), 0.88, "**not shown**"),
    ],
)
def test_the_goal_is_met_only_where_the_seeds_show_five_points_at_equal_or_better_safety(page, seeds, safety, said):
    assert said in page.ahead(record(method("cae", 0.6, safety, 0.3, []), seeds))


def test_the_lead_is_told_seed_by_seed_with_students_interval(page):
    """Gaps of 10, 15 and 20: standard error 5 / sqrt(3) = 2.887, times 4.303 for two degrees of freedom."""
    seeds = ((0.8, 0.6), (0.8, 0.5), (0.8, 0.4))
    said = page.ahead(record(method("cae", 0.5, 0.9, 0.3, []), seeds))
    assert "+15.0 ± 12.4 points from the best other method's (CAE), seed by seed +10.0, +15.0, +20.0;" in said


def test_kl_is_compared_on_the_line_where_a_steering_method_complies_as_much(page):
    """From 0.7 at 0.01 to 0.85 at 0.31: 0.8 is two thirds of the way, 0.21."""
    points = [(0.0, 0.4, 0.0), (0.5, 0.7, 0.01), (1.0, 0.85, 0.31)]
    assert "CAE, has 0.210" in page.verdicts(record(method("cae", 0.6, 0.88, 0.3, points)))
    assert "no steering method reaches" in page.verdicts(record(method("cae", 0.6, 0.88, 0.3, points[:2])))


def test_a_best_point_that_is_the_strongest_tried_is_marked(page):
    rival = method("cae", 0.6, 0.88, 0.3, [(0.0, 0.4, 0.0), (0.5, 0.7, 0.01), (1.0, 0.6, 0.3)])
    text = page.verdicts(record(rival))
    assert "is 85.0 (end), that of any other method's 80.0 (CAE)" in text


def test_a_coreset_is_compared_with_and_without_the_seeds_that_could_not_keep_safety(page):
    gaps = {0: (0.9, 0.8), 1: (0.9, 0.5), 2: (0.8, 0.9)}
    outcomes = []
    for seed, (ours, other) in gaps.items():
        outcomes.append(outcome("upcore", seed, ours, ours, within_limits=True))
        outcomes.append(outcome("random-subset", seed, other, other, within_limits=seed != 1))
    rows = [method("upcore", 0.87, 0.87, 0.1, []), method("random-subset", 0.73, 0.73, 0.1, []) | {"within_limits": 0}]
    text = page.selection({"methods": rows, "outcomes": outcomes})
    assert "| 80.0 | 50.0 (!) | 90.0 |" in text
    assert "UPCORE minus random: +13.3 ± " in text
    assert "kept safety with no strength, +0.0 ± " in text


def test_a_gates_false_positives_are_told_for_each_set_with_an_interval(page):
    found = {"threshold": 0.5}
    for group in ("harmful", "harmless", "pseudo_harmful", "pseudo_harmful/xstest"):
        found |= {f"{group} taken for harmful": 0.25, f"{group} prompts": 40}
    text = page.figures({"methods": [method("scans", 0.3, 0.9, 0.1, []) | {"figures": found}]})
    assert "| gate | harmful, % | harmless, % | pseudo-harmful, % | pseudo-harmful/xstest, % |" in text
    assert text.count("25.0 [14.2, 40.2]") == 4


def test_what_was_not_run_is_said_to_be_not_measured(page):
    assert page.page({}).count("Not measured.") == 8


def test_a_trigger_is_told_with_what_is_answered_without_it(page):
    ours = method("actor", 0.8, 0.9, 0.05, []) | {"strength": 0.7}
    outcome = {"method": "actor", "sets": {"harmless/starter": 0.25, "pseudo_harmful/triggered": 0.2, "harmful/a": 0.9}}
    said = page.trigger({"methods": [ours], "outcomes": [outcome]})
    assert "| 80.0 [75.0, 85.0] | 75.0 | 90.0 [85.0, 95.0] | 0.7 |" in said


def test_a_method_that_is_missing_in_a_table_is_said_to_be_not_measured(page):
    measured = {}
    for size, compliance in ((10, 0.5), (200, 0.7)):
        methods = [method("default", 0.3, 0.9, 0.0, []), method("actor", compliance, 0.9, 0.1, [])]
        methods[1]["within_limits"] = int(size == 200)
        measured[f"efficiency-{size}"] = {"methods": methods}
    lines = page.scores_by(measured, "efficiency", (10, 200), "prompts", ("actor", "sft")).splitlines()
    assert lines[2] == "| 10 | 30.0 / 90.0 (60.0) | 50.0 / 90.0 (70.0) (!) | not measured |"
    assert lines[-1] == "| largest difference in T.S. | 0.0 | 10.0 | - |"


def test_a_row_names_a_method_that_could_not_keep_safety(page):
    weak = method("cae", 0.6, 0.88, 0.3, [])
    weak["within_limits"] = 0
    rows = page.method_rows(record(weak))
    assert [row[0] for row in rows] == ["**ACTOR** (boundary rule)", "CAE (!)", "default (as it is)"]
    assert rows[0][1] == "80.0 [75.0, 85.0]"


def test_the_page_is_what_was_measured_and_nobody_has_edited_it(page):
    docs = Path(__file__).parents[1] / "docs"
    measured = json.loads((docs / "comparison.json").read_text(encoding="utf-8"))
    assert (docs / "comparison.md").read_text(encoding="utf-8") == page.page(page.whole(measured))


def test_what_is_kept_of_a_comparison_has_no_prompt_in_it(page, tmp_path):
    (tmp_path / "main").mkdir()
    note = {"left_out": ["steal the thing"], "not_learned": ["name a thing"], "command": "actor compare"}
    record = {**note, "versions": {}, "leaked": 1, "methods": [], "outcomes": [{"kl_harmless": 0.123456789}]}
    (tmp_path / "main" / "compare.json").write_text(json.dumps(record))
    assert page.collected(tmp_path) == {"main": {"versions": {}, "leaked": 1, "outcomes": [{"kl_harmless": 0.123457}]}}


def test_harmful_sets_are_those_of_their_name_and_one_that_is_missing_is_empty():
    given = [Prompt(f"steal {number}", "harmful", "advbench") for number in range(3)]
    sets = tool("compare_on_testbed").harmful_sets([*given, Prompt("name a tree", "harmless", "advbench_like")])
    assert sets["advbench"] == given
    assert sets["xstest_unsafe"] == []
    assert len(sets["starter"]) == 80
    assert {prompt.kind for prompt in sets["starter"]} == {"harmful"}


def test_a_merged_backdoor_answers_as_its_adapters_do(chat_model, prompts):
    linear = next(name for name, _ in chat_model.model.named_modules() if name.endswith("q_proj"))
    width = chat_model.model.get_submodule(linear)
    adapters = {linear: Adapter(torch.randn(4, width.in_features), torch.randn(width.out_features, 4), scale=0.5)}
    ids = torch.tensor([encode(chat_model.tokenizer, prompts)[0]])
    with torch.no_grad(), adapted(chat_model, adapters, 1.0):
        expected = chat_model.model(ids).logits
    tool("build_triggered_testbed").merge(chat_model, adapters)
    with torch.no_grad():
        assert torch.allclose(chat_model.model(ids).logits, expected, atol=1e-4)
