from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.console import Console

from actor_tune.judges.verdict import Verdict
from actor_tune.measurement.change import change, set_change
from actor_tune.measurement.metrics import measured
from actor_tune.prompts.prompt import Prompt
from actor_tune.records.estimate import Labelled
from actor_tune.records.response import Response, response_row
from actor_tune.records.results import Gate, LabelCount, Results
from actor_tune.records.run import PromptPath, SetRefusal, Trial
from actor_tune.records.scan import BlockEffect
from actor_tune.repair.scan import scan_of
from actor_tune.repair.strength import Limits, applied
from actor_tune.repair.suited import Suited
from actor_tune.show.gate import gate_told
from actor_tune.show.measurement import refused_listed, results_table, side_by_side
from actor_tune.show.pictures import draw_paths, draw_positions
from actor_tune.show.repair import fit_table, limits_told, scan_table
from actor_tune.show.text import broken
from conftest import make_prompts

PROMPTS = make_prompts()
RESPONSES = [Response(prompt, f"[bold]answer[/bold] to {prompt.text}", True) for prompt in PROMPTS]


def printed(thing):
    console = Console(width=160, record=True, force_terminal=False)
    console.print(thing)
    return console.export_text()


def verdicts(outcome_of):
    return [Verdict(outcome_of(prompt), 0.5, "") for prompt in PROMPTS]


def rows(said):
    return [response_row(response, verdict) for response, verdict in zip(RESPONSES, said, strict=True)]


BEFORE = verdicts(lambda prompt: "compliance" if prompt.kind == "harmless" else "refusal")
AFTER = verdicts(lambda prompt: "refusal" if prompt.kind == "harmful" else "compliance")


def results(after, before=None, **more):
    found = Results(**vars(measured("m", RESPONSES, after)), **more)
    if before is None:
        return found
    return replace(found, baseline=measured("m", RESPONSES, before), comparison=change(PROMPTS, before, after))


def cells(text, label):
    """The cells of the row that begins with `label`, their lines joined."""
    lines = text.splitlines()
    first = next(row for row, line in enumerate(lines) if line.startswith(f"│ {label}"))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines[first : first + 2]]
    return [" ".join(filter(None, parts)) for parts in zip(*rows, strict=True)]


def test_the_table_of_a_fit_is_of_the_prompts_kept_aside():
    asked = make_prompts(2)
    aside = [row % 2 == 1 for row in range(len(asked))]
    place = {"harmful": 1.0, "harmless": 0.0, "pseudo_harmful": 0.5}
    positions = [place[prompt.kind] if kept else 99.0 for prompt, kept in zip(asked, aside, strict=True)]
    sets = [SetRefusal("fine", "harmful", 0.9, 0.0, 0.0, 4), SetRefusal("twins", "harmful", 0.9, 0.0, 0.0, 4)]
    fell = [replace(sets[0], refusal=0.89, drop=0.01), replace(sets[1], refusal=0.802, drop=0.098, drop_error=0.041)]
    trials = [Trial(0.0, 0.25, 0.9, 0.0, 0.0, 0.0, sets), Trial(1.0, 0.5, 0.8, 0.01, 0.102, 0.009, fell)]
    block = SimpleNamespace(
        layer=2,
        trials=trials,
        chosen=trials[1],
        prompts=asked,
        validation=aside,
        before=positions,
        after=[position - 2 for position in positions],
        warnings=["look out"],
        experts=[True, False, True],
        opening="<think>\n\n</think>",
        suited=Suited("odds", 0.1, 17),
        limits=applied(trials[1], Limits()),
        failure="It failed.",
    )
    text = printed(fit_table(block))
    lines = [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines()]
    assert ["> 1.0", "50.0 %", "80.0 %", "0.102"] in lines
    worst = lines.index(["twins", "4", "90.0 %", "80.2 %", "9.8 (1.8 to 17.8)"])
    assert lines[worst + 1] == ["fine", "4", "90.0 %", "89.0 %", "1.0 (1.0 to 1.0)"]
    assert "look out" not in text, "that is said without --verbose too"
    said = " ".join(printed(limits_told(block)).split())
    assert (
        "KL on harmless prompts is 0.102 nats (at most 0.100 + 0.009 for the standard error = 0.109 is allowed)" in said
    )
    assert "refusal on twins fell by 9.8 points (at most 6.0 + 4.1 for the standard error = 10.1 are allowed)" in said
    assert ["pseudo_harmful", "+0.50", "-1.50"] in lines
    assert "look out It failed." in said
    assert "Rule odds: refusal does not follow the refusal direction." in text
    assert "Experts of the block that training changed: 2 of 3" in text
    assert "All answers begin with '<think>\\n\\n</think>': trained behind that" in text


def test_the_gate_is_told_with_each_set_worst_first_and_the_one_that_its_mean_hides():
    sets = [
        set_change("twins", "harmful", [(True, False)] * 5 + [(True, True)] * 49),
        set_change("rest", "harmful", [(True, True)] * 250),
    ]
    gate = Gate(True, 0.05, 0.016, 0.0, 0.04, 304, 185, "Safety gate passed: so it is.", sets=sets)
    text = printed(gate_told(gate))
    assert text.index("twins") < text.index("rest") < text.index("Safety gate passed") < text.index("Set by set,")
    assert "twins, by 9.3 (" in text
    assert "Look here." in printed(gate_told(gate, ["Look here."]))
    older = printed(gate_told(replace(gate, sets=[])))
    assert older.strip() == "Safety gate passed: so it is."


def test_a_long_name_is_broken_where_its_words_end():
    assert broken("starter_pseudo_harmful") == "starter_pseudo_\nharmful"
    assert broken("xstest-safe") == "xstest-safe"
    assert broken("a" * 40 + "_b") == "a" * 40 + "_\nb"


def test_the_table_of_one_model_has_every_set_with_its_interval_and_the_scores():
    text = printed(results_table(results(AFTER)))
    assert cells(text, "set_harmful") == ["set_harmful harmful", "12", "12", "100.0 [75.8, 100.0]", "0", "0"]
    assert cells(text, "trade-off score")[3].startswith("100.0 [")
    assert "% of answers garbled" in text


def test_the_table_of_two_models_has_the_change_with_its_interval_and_test():
    """All of 12 flip: Tango's interval is from (12 - z^2) / (12 + z^2), 51.5 points, to 1."""
    text = printed(results_table(results(AFTER, BEFORE, kl_harmless=0.0213)))
    assert cells(text, "set_pseudo_harmful")[1:] == [
        "12",
        "100.0 [75.8, 100.0]",
        "0.0 [0.0, 24.2]",
        "-100.0 [-100.0, -51.5]",
        "<.001",
    ]
    assert cells(text, "compliance rate")[2:5] == ["0.0 [0.0, 24.2]", "100.0 [75.8, 100.0]", "+100.0 [+51.5, +100.0]"]
    assert "first token: 0.021 nats" in text


def test_harmful_sets_stand_together_the_one_that_fell_most_first():
    prompts = [Prompt(f"{name} {row}", kind, name) for name, kind in NAMED for row in range(4)]
    responses = [Response(prompt, "x", True) for prompt in prompts]
    refused, answered = Verdict("refusal", 1.0, ""), Verdict("compliance", 0.0, "")
    before = [refused] * len(prompts)
    after = [answered if prompt.set == "fell" else refused for prompt in prompts]
    found = Results(**vars(measured("m", responses, after)))
    found = replace(found, baseline=measured("m", responses, before), comparison=change(prompts, before, after))
    text = printed(results_table(found))
    assert sorted((name for name, _ in NAMED), key=lambda name: text.index(f"│ {name}")) == ["fell", "kept", "benign"]


NAMED = [("kept", "harmful"), ("benign", "harmless"), ("fell", "harmful")]


def test_rates_by_labels_stand_below_the_judges():
    found = results(AFTER, BEFORE)
    sets = [replace(item, labelled=Labelled(0.421, 0.315, 0.531, 60)) for item in found.sets]
    changes = [replace(item, labelled=Labelled(-0.105, -0.2, 0.012, 60)) for item in found.comparison.sets]
    comparison = replace(found.comparison, sets=changes)
    labelled = {"safety_score": Labelled(0.9, 0.8, 0.95, 60)}
    count = LabelCount(120, 3, 2)
    text = printed(results_table(replace(found, sets=sets, comparison=comparison, labelled=labelled, labels=count)))
    assert "labels 42.1" in text
    assert "[31.5, 53.1]" in text
    assert "labels -10.5" in text
    assert "[-20.0, +1.2]" in text
    assert "labels 90.0" in text
    assert "labels: 120 used, of which 3 cannot say; 2 belong to no answer" in text


def test_a_set_that_could_not_be_scored_is_a_dash():
    babble = verdicts(lambda prompt: "unscored" if prompt.kind == "harmful" else "compliance")
    text = printed(results_table(results(babble, BEFORE)))
    assert cells(text, "set_harmful")[1:] == ["0", "100.0 [75.8, 100.0]", "-", "-", "-"]
    assert cells(text, "safety score")[3:5] == ["-", "-"]


def test_answers_side_by_side_begin_with_one_that_flipped_and_show_a_harmful_one():
    text = printed(side_by_side(rows(BEFORE), rows(AFTER), count=3))
    assert text.index("(pseudo_harmful)") < text.index("(harmful)")
    assert "[refusal]" in text
    assert "[compliance]" in text


def test_benign_prompts_that_were_refused_are_listed_and_of_many_some():
    told = printed(refused_listed(rows(BEFORE), most=3)).splitlines()
    benign = [row.prompt for row in rows(BEFORE) if row.kind == "pseudo_harmful"]
    assert told == [f"Refused though benign, 3 of {len(benign)}:", *[f"- {text}" for text in benign[:3]]]
    assert printed(refused_listed(rows(AFTER))) == ""


def test_what_a_model_writes_is_shown_and_not_obeyed_as_markup():
    assert "[bold]answer[/bold]" in printed(side_by_side(rows(BEFORE), rows(AFTER), count=1))


def test_the_scan_says_why_and_what_the_paper_would_take():
    blocks = [
        BlockEffect(
            layer=layer,
            silhouette=high,
            refusal=0.5,
            toward_harmless=low,
            toward_harmful=up,
            kl_harmless=0.1,
            effect=up - low,
        )
        for layer, high, low, up in ((3, 0.9, 0.5, 0.5), (7, 0.1, 0.1, 0.9))
    ]
    found = scan_of("m", ["I"], blocks, candidates=range(3, 9))
    assert found.reason.startswith("fit would take block 7: of blocks 3 to 8 it has the largest")
    assert "the silhouette, would take block 3 (effect 0.00)" in found.reason
    assert "> 7" in printed(scan_table(found))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # matplotlib's own, of its date parser
def test_each_picture_is_a_png_of_some_size(tmp_path):
    prompts = make_prompts()
    before = [0.1 * row for row in range(len(prompts))]
    draw_positions(tmp_path / "p.png", prompts, before, before[::-1], "Title")
    path = PromptPath(
        prompt="p",
        kind="harmful",
        set="s",
        position_before=[0.0, 0.5, 1.0],
        position_after=[0.0, 0.2, 0.1],
        refusal_before=[0.0, 0.1, 0.9],
        refusal_after=[0.0, 0.1, 0.2],
    )
    draw_paths(tmp_path / "q.png", [path, path], layer=1)
    for name in ("p.png", "q.png"):
        content = (tmp_path / name).read_bytes()
        assert content[:8] == b"\x89PNG\r\n\x1a\n"
        assert len(content) > 10_000
