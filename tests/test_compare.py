import json

import pytest
import torch
from rich.console import Console

from actor_tune.compare import (
    Contest,
    Outcome,
    begin,
    choice_of,
    compare,
    for_the_worse,
    over_seeds,
    summary,
)
from actor_tune.errors import UserError
from actor_tune.frontier import compare_table, draw_frontier
from actor_tune.judges import Verdict
from actor_tune.methods.known import methods
from actor_tune.metrics import Estimate
from actor_tune.prompts import Prompt
from actor_tune.strength import Trial
from conftest import make_prompts


def trial(strength, compliance, safety, drop=None):
    drop = 0.9 - safety if drop is None else drop
    return Trial(strength, compliance, safety, drop, kl_harmless=5.0, kl_error=0.0, sets=[])


def test_the_strength_is_that_of_most_compliance_whose_safety_holds_whatever_its_kl():
    found = [trial(0, 0.3, 0.9), trial(0.5, 0.6, 0.9), trial(1, 0.8, 0.89), trial(2, 0.95, 0.5)]
    choice = choice_of(found)
    assert (choice.strength, choice.within_limits) == (1, True)
    assert [point["compliance"] for point in choice.curve] == [0.3, 0.6, 0.8, 0.95]


def test_a_method_that_cannot_keep_safety_is_shown_at_its_safest():
    choice = choice_of([trial(0, 0.3, 0.9), trial(0.5, 0.9, 0.6), trial(1, 0.95, 0.7)])
    assert (choice.strength, choice.within_limits) == (1, False)


def test_doing_nothing_is_no_choice_though_it_complied_as_much():
    """Safety holds at both: the more compliant one is within the limits."""
    choice = choice_of([trial(0, 0.3, 0.9), trial(0.5, 0.3, 0.9), trial(1, 0.2, 0.95)])
    assert (choice.strength, choice.within_limits) == (0.5, True)


@pytest.mark.parametrize(("kind", "outcome"), [("harmful", "compliance"), ("pseudo_harmful", "refusal")])
def test_an_answer_in_no_language_counts_for_the_worse(kind, outcome):
    prompt = Prompt("p", kind, "s")
    assert for_the_worse(prompt, Verdict("unscored", 0.5, "empty")).outcome == outcome
    assert for_the_worse(prompt, Verdict("partial", 0.5, "")).outcome == "partial"


def test_an_interval_over_seeds_keeps_the_part_of_the_prompts_and_adds_the_spread():
    same = [Estimate(0.5, 0.4, 0.6)] * 3
    assert over_seeds(same).low == pytest.approx(0.4)
    spread = over_seeds([Estimate(0.4, 0.3, 0.5), Estimate(0.5, 0.4, 0.6), Estimate(0.6, 0.5, 0.7)])
    # 0.1 of the prompts, and Student's 4.303 * 0.1 / sqrt(3) of the seeds, by squares.
    assert spread.value - spread.low == pytest.approx((0.1**2 + 0.24843**2) ** 0.5, rel=1e-3)
    assert over_seeds([same[0], None]) is None


def contest(seeds=1):
    prompts = make_prompts(24)
    given = [prompt for index, prompt in enumerate(prompts) if index % 24 < 16]
    return Contest(given, [prompt for prompt in prompts if prompt not in given], seeds, starter=False, max_new_tokens=2)


@pytest.fixture
def chosen():
    return {name: method for name, method in methods({}).items() if name in ("actor", "cae", "inferaligner")}


def run(chat_model, folder, chosen, seeds=1):
    torch.manual_seed(0)
    begin("tiny", contest(seeds), [*chosen], folder)
    return compare(chat_model, contest(seeds), chosen, folder, {"command": "test"})


@pytest.fixture
def saved(model_folder):
    from actor_tune.model import load_model

    return load_model(str(model_folder))


def test_every_method_is_measured_and_a_second_run_measures_nothing_again(saved, tmp_path, chosen, monkeypatch):
    found = run(saved, tmp_path / "c", chosen)
    stored = json.loads((tmp_path / "c" / "compare.json").read_text())
    assert [item["method"] for item in stored["methods"]] == ["default", "actor", "cae", "inferaligner"]
    for item in stored["methods"]:
        assert {
            "compliance_rate",
            "safety_score",
            "tradeoff_score",
            "kl_harmless",
            "intervals",
            "strength",
            "seconds",
        } <= set(item)
    assert stored["methods"][0]["kl_harmless"] == 0
    assert stored["methods"][2]["kl_harmless"] > 0
    assert "pseudo_harmful taken for harmful" in stored["methods"][3]["figures"]
    monkeypatch.setattr("actor_tune.compare.respond", lambda *_: pytest.fail("asked again"))
    assert [item.scores for item in run(saved, tmp_path / "c", chosen)] == [item.scores for item in found]


def test_another_contest_in_the_same_folder_is_refused(saved, tmp_path, chosen):
    begin("tiny", contest(), ["cae"], tmp_path / "c")
    begin("tiny", contest(), ["cae"], tmp_path / "c")
    with pytest.raises(UserError, match="begun with model"):
        begin("other", contest(), ["cae"], tmp_path / "c")
    with pytest.raises(UserError, match="begun with seeds"):
        begin("tiny", contest(seeds=2), ["cae"], tmp_path / "c")


def test_a_run_that_was_cut_off_goes_on_with_its_answers_at_the_same_strength(saved, tmp_path, chosen, monkeypatch):
    found = run(saved, tmp_path / "c", chosen)
    (tmp_path / "c" / "cae-0.json").unlink()
    (store,) = (tmp_path / "c").glob("cae-0-at-*.jsonl")
    lines = store.read_text().splitlines(keepends=True)
    store.write_text("".join(lines[:3]))
    again = run(saved, tmp_path / "c", chosen)
    assert len(store.read_text().splitlines()) == len(lines)
    assert [item.scores for item in again] == [item.scores for item in found]


def test_an_outcome_of_another_version_is_named(saved, tmp_path, chosen):
    begin("tiny", contest(), [*chosen], tmp_path / "c")
    (tmp_path / "c" / "default.json").write_text('{"method": "default"}')
    with pytest.raises(UserError, match="no outcome of this version"):
        run(saved, tmp_path / "c", chosen)


def outcome(method, seed, value, strength=1.0, within=True):
    scores = {
        name: Estimate(value, value - 0.1, value + 0.1)
        for name in ("compliance_rate", "safety_score", "tradeoff_score")
    }
    curve = [{"strength": 0.0, "compliance": 0.3, "safety": 0.9, "kl_harmless": 0.0}]
    return Outcome(method, seed, strength, within, curve, scores, {}, 0.1, 0.0, 10.0, 5.0, 20.0)


def test_the_table_shows_the_best_first_and_marks_what_did_not_keep_safety(tmp_path):
    summaries = [
        summary([outcome("default", 0, 0.5)]),
        summary([outcome("cae", 0, 0.6, within=False), outcome("cae", 1, 0.7)]),
    ]
    console = Console(width=160, record=True)
    console.print(compare_table(summaries))
    text = console.export_text()
    assert text.index("cae !") < text.index("default")
    assert "65.0" in text
    draw_frontier(tmp_path / "f.png", summaries)
    assert (tmp_path / "f.png").read_bytes()[:4] == b"\x89PNG"
