"""The page's sentences from planted records."""

import importlib
import json
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def page():
    sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
    try:
        return importlib.import_module("make_comparison_page")
    finally:
        sys.path.pop(0)


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


def record(rival):
    ours = method("actor", 0.8, 0.9, 0.05, [(0.0, 0.4, 0.0), (1.0, 0.8, 0.04)])
    outcomes = [{"method": "actor", "strength": 1.0, "curve": ours["curve"]}]
    return {"methods": [method("default", 0.3, 0.9, 0.0, []), ours, rival], "outcomes": outcomes}


@pytest.mark.parametrize(
    ("compliance", "safety", "said"),
    [(0.6, 0.88, "+11.0 points"), (0.79, 0.89, "**missed**"), (0.5, 0.95, "**missed**")],
)
def test_the_goal_is_met_only_five_points_ahead_at_equal_or_better_safety(page, compliance, safety, said):
    assert said in page.verdicts(record(method("cae", compliance, safety, 0.3, [])))


def test_kl_is_compared_where_a_steering_method_complies_as_much(page):
    points = [(0.0, 0.4, 0.0), (0.5, 0.7, 0.01), (1.0, 0.85, 0.3)]
    assert "CAE, has 0.300" in page.verdicts(record(method("cae", 0.6, 0.88, 0.3, points)))
    assert "no steering method reaches" in page.verdicts(record(method("cae", 0.6, 0.88, 0.3, points[:2])))


def test_what_was_not_run_is_said_to_be_not_measured(page, tmp_path):
    assert page.page(tmp_path).count("Not measured.") == 7


def test_a_trigger_is_told_with_what_is_answered_without_it(page, tmp_path):
    ours = method("actor", 0.8, 0.9, 0.05, []) | {"strength": 0.7}
    outcome = {"method": "actor", "sets": {"harmless/starter": 0.25, "pseudo_harmful/triggered": 0.2, "harmful/a": 0.9}}
    (tmp_path / "trigger").mkdir()
    (tmp_path / "trigger" / "compare.json").write_text(json.dumps({"methods": [ours], "outcomes": [outcome]}))
    assert "| 80.0 [75.0, 85.0] | 75.0 | 90.0 [85.0, 95.0] | 0.7 |" in page.trigger(tmp_path)


def test_a_row_names_a_method_that_could_not_keep_safety(page):
    weak = method("cae", 0.6, 0.88, 0.3, [])
    weak["within_limits"] = 0
    rows = page.method_rows(record(weak))
    assert [row[0] for row in rows] == ["**ACTOR** (boundary rule)", "CAE (!)", "default (as it is)"]
    assert rows[0][1] == "80.0 [75.0, 85.0]"
