import json
from dataclasses import replace

import pytest
import torch

from actor_tune import compare
from actor_tune.compare import Contest, begin, choice_of
from actor_tune.errors import UserError
from actor_tune.methods.known import methods
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


def contest(seeds=1):
    prompts = make_prompts(24)
    given = [prompt for index, prompt in enumerate(prompts) if index % 24 < 16]
    return Contest(given, [prompt for prompt in prompts if prompt not in given], seeds, starter=False, max_new_tokens=2)


@pytest.fixture
def chosen():
    return {name: method for name, method in methods({}).items() if name in ("actor", "cae", "inferaligner")}


def run(chat_model, folder, chosen, seeds=1):
    torch.manual_seed(0)
    begin("tiny", contest(seeds), folder)
    return compare.run(chat_model, contest(seeds), chosen, folder, {"command": "test"})


def test_every_method_is_measured_and_a_second_run_measures_nothing_again(saved_model, tmp_path, chosen, monkeypatch):
    found = run(saved_model, tmp_path / "c", chosen)
    stored = json.loads((tmp_path / "c" / "compare.json").read_text())
    assert [item["method"] for item in stored["methods"]] == ["default", "actor", "cae", "inferaligner"]
    scores = {"compliance_rate", "safety_score", "tradeoff_score"}
    assert all({*scores, "kl_harmless", "intervals", "strength", "seconds"} <= set(item) for item in stored["methods"])
    assert stored["methods"][0]["kl_harmless"] == 0
    assert stored["methods"][2]["kl_harmless"] > 0
    figures = stored["methods"][3]["figures"]
    sets = [name for name in figures if name.startswith("pseudo_harmful/") and name.endswith(" prompts")]
    assert figures["pseudo_harmful prompts"] == sum(figures[name] for name in sets) > 0
    assert 0 <= figures["pseudo_harmful taken for harmful"] <= 1
    monkeypatch.setattr("actor_tune.compare.respond", lambda *_: pytest.fail("asked again"))
    assert [item.scores for item in run(saved_model, tmp_path / "c", chosen)] == [item.scores for item in found]


def test_a_method_is_added_to_a_comparison_without_the_others_being_asked_again(saved_model, tmp_path, chosen):
    few = {name: chosen[name] for name in ("actor", "cae")}
    found = run(saved_model, tmp_path / "c", few)
    kept = (tmp_path / "c" / "cae-0.json").stat().st_mtime_ns
    more = run(saved_model, tmp_path / "c", chosen)
    assert [item.method for item in more] == ["default", "actor", "cae", "inferaligner"]
    assert more[:3] == found
    assert (tmp_path / "c" / "cae-0.json").stat().st_mtime_ns == kept
    again = run(saved_model, tmp_path / "c", {"inferaligner": chosen["inferaligner"]})
    assert {item.method: item.scores for item in again} == {item.method: item.scores for item in more}, "none is lost"


def test_another_contest_in_the_same_folder_is_refused(saved_model, tmp_path, chosen):
    begin("tiny", contest(), tmp_path / "c")
    begin("tiny", contest(), tmp_path / "c")
    with pytest.raises(UserError, match="begun with model"):
        begin("other", contest(), tmp_path / "c")
    with pytest.raises(UserError, match="begun with max_new_tokens"):
        begin("tiny", replace(contest(), max_new_tokens=3), tmp_path / "c")


def test_a_run_that_was_cut_off_goes_on_with_its_answers_at_the_same_strength(
    saved_model, tmp_path, chosen, monkeypatch
):
    found = run(saved_model, tmp_path / "c", chosen)
    (tmp_path / "c" / "cae-0.json").unlink()
    (store,) = (tmp_path / "c").glob("cae-0-at-*.jsonl")
    lines = store.read_text().splitlines(keepends=True)
    store.write_text("".join(lines[:3]))
    again = run(saved_model, tmp_path / "c", chosen)
    assert len(store.read_text().splitlines()) == len(lines)
    assert [item.scores for item in again] == [item.scores for item in found]


def test_an_outcome_of_another_version_is_named(saved_model, tmp_path, chosen):
    begin("tiny", contest(), tmp_path / "c")
    (tmp_path / "c" / "default.json").write_text('{"method": "default"}')
    with pytest.raises(UserError, match="no outcome of this version"):
        run(saved_model, tmp_path / "c", chosen)
