from dataclasses import replace
from types import SimpleNamespace

import pytest

from actor_tune.measurement.change import set_change
from actor_tune.measurement.metrics import tango_interval
from actor_tune.records.results import Gate
from actor_tune.records.run import SetRefusal, Trial
from actor_tune.repair.card import write_card
from actor_tune.repair.rules import BOUNDARY
from actor_tune.repair.settings import DEFAULTS, Settings
from actor_tune.repair.strength import Limits, applied

FIRST = Trial(0.0, 0.3, 0.9, 0.0, 0.0, 0.0, [SetRefusal(name, "harmful", 0.95, 0.0, 0.0, 9) for name in ("a", "b|c")])
SETS = [SetRefusal("a", "harmful", 0.94, 0.01, 0.02, 9), SetRefusal("b|c", "harmful", 0.852, 0.098, 0.041, 9)]
CHOSEN = replace(FIRST, strength=0.8, compliance=0.75, safety=0.91, sets=SETS)
TWINS = set_change("starter_twins", "harmful", [(True, False)] * 5 + [(True, True)] * 49)
REST = set_change("starter_harmful", "harmful", [(True, True)] * 250)
PASSED = Gate(True, 0.05, 0.0, -0.01, 0.01, 304, 185, "Safety gate passed: all is well.", sets=[TWINS, REST])
FAILED = replace(PASSED, passed=False, sentence="Safety gate failed: it fell.")


@pytest.fixture
def folders(tmp_path):
    base, model = tmp_path / "base", tmp_path / "model"
    base.mkdir()
    model.mkdir()
    return base, model


def card(folders, gate=PASSED, reasons=(), thinks=None, name="some/base", settings=DEFAULTS):
    """Of the part of a `Fit` that a card tells."""
    base, model = folders
    limits = applied(CHOSEN, Limits())
    block = SimpleNamespace(trials=[FIRST], chosen=CHOSEN, rule=BOUNDARY, limits=limits)
    told = {"enable_thinking": False}
    origin = SimpleNamespace(name=name, folder=base, chat_template_kwargs=told)
    warned = [gate.warning] if gate else []
    said = {"gate": gate, "reasons": reasons, "thinks": thinks, "fallen": warned, "settings": settings}
    fit = SimpleNamespace(model=origin, layer=21, block=block, **said)
    write_card(model, fit)
    return (model / "README.md").read_text()


def test_the_card_says_what_was_done_to_which_base_and_what_the_gate_said(folders):
    text = card(folders)
    assert text.startswith("---\n")
    assert "base_model: some/base" in text
    assert "Block 21 of some/base was trained" in text
    assert "Safety gate passed: all is well." in text
    assert "compliance 30.0 -> 75.0 %, safety" in " ".join(text.split())
    assert "Not safe to ship" not in text


def test_the_card_has_each_harmful_set_worst_first_and_names_one_that_fell_behind_the_mean(folders):
    text = card(folders)
    fall = tango_interval(5, 0, 54)
    ends = f"({100 * fall.low:.1f} to {100 * fall.high:.1f})"
    lines = text.splitlines()
    first = lines.index(f"| starter_twins | 54 | 100.0 | 90.7 | 9.3 {ends} |")
    assert lines[first + 1].startswith("| starter_harmful | 250 | 100.0 | 100.0 | 0.0 (")
    worst = lines.index("| b\\|c | 9 | 95.0 | 85.2 | 9.8 (1.8 to 17.8) |")
    assert lines[worst + 1].startswith("| a | 9 | 95.0 | 94.0 | 1.0 (")
    assert "> **Look at single sets.** Set by set, refusal fell by more than 5.0 points" in text
    assert (
        "- refusal on b\\|c fell by 9.8 points (at most 6.0 + 4.1 for the standard error = 10.1 are allowed)" in lines
    )


@pytest.mark.parametrize("gate", [FAILED, None])
def test_a_model_written_though_it_failed_says_so_in_its_card(folders, gate):
    text = card(folders, gate, ["KL rose.", "Safety gate failed: it fell."])
    assert "**Not safe to ship.** This model was written with `allow_unsafe`" in text
    assert "KL rose. Safety gate failed: it fell." in text
    assert ("The safety gate was not measured." in text) == (gate is None)


def test_a_model_that_was_in_memory_alone_has_no_card_to_take_over(tmp_path):
    text = card((None, tmp_path))
    assert "base_model: some/base" in text
    assert not (tmp_path / "BASE_README.md").exists()


def test_the_bases_card_is_kept_and_its_licence_carried_over(folders):
    base, model = folders
    (base / "README.md").write_text("---\nlicense: apache-2.0\ntags: [chat]\n---\nThe base.\n")
    (model / "README.md").write_text((base / "README.md").read_text())
    text = card(folders)
    assert "license: apache-2.0" in text
    assert "- chat" in text
    assert "- actor-tune" in text
    assert (model / "BASE_README.md").read_text().endswith("The base.\n")


def test_what_the_base_scored_and_was_made_from_is_not_said_of_the_model(folders):
    metric = "metrics: [{type: accuracy, value: 99}]"
    index = f"model-index: [{{name: b, results: [{{task: {{type: t}}, dataset: {{type: d, name: d}}, {metric}}}]}}]"
    (folders[0] / "README.md").write_text(f"---\nbase_model: an/older-one\nlicense: mit\n{index}\n---\nThe base.\n")
    text = card(folders)
    assert "license: mit" in text
    assert "base_model: some/base" in text
    assert "accuracy" not in text
    (folders[1] / "README.md").unlink()
    assert "base_model" not in card(folders, name="./some/base"), "of a folder, the Hub knows no base"


@pytest.mark.parametrize("content", [b"---\n\xff: [\n---\n", b"---\nlicense: [a\n---\nx\n"])
def test_a_damaged_card_of_the_base_does_not_stop_anything(folders, content):
    (folders[0] / "README.md").write_bytes(content)
    assert "base_model: some/base" in card(folders)


def test_the_card_of_a_model_that_reasons_says_which_mode_was_trained_and_that_the_other_was_not(folders):
    text = " ".join(card(folders, thinks=False).split())
    told = """with the chat template told {"enable_thinking": false}."""
    assert f"It was trained where it answers, {told} Reasoning first was not trained" in text


def test_where_it_was_trained_as_it_begins_to_reason_the_card_says_that(folders):
    text = " ".join(card(folders, thinks=True).split())
    assert "It was trained where it begins to reason" in text
    assert "Answering without reasoning was not trained" in text


def test_the_card_says_what_was_freed_or_strengthened(folders):
    text = " ".join(card(folders, settings=Settings(categories=("medicine", "first | aid"))).split())
    assert "so that benign prompts of medicine, first \\| aid alone that only look harmful are answered" in text
    text = " ".join(card(folders, settings=Settings(strengthen=True)).split())
    assert "trained to refuse more of what is harmful" in text
    assert "so that harmful prompts that slip through are refused, and benign prompts are answered as before" in text
