"""Categories of prompts: read, kept, freed or held by a fit, and shown before and after."""

import hashlib
import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import pyarrow
import pyarrow.parquet
import pytest
import torch

from actor_tune.engines.engine import Answer
from actor_tune.engines.respond import respond
from actor_tune.errors import UserError
from actor_tune.judges.verdict import Verdict
from actor_tune.measurement.change import change
from actor_tune.measurement.metrics import measured
from actor_tune.measurement.questions import Questions
from actor_tune.measurement.requests import request_of
from actor_tune.models.above import Slope
from actor_tune.prompts.prompt import KINDS, Prompt, distinct, fingerprint, of_kind, without_categories
from actor_tune.prompts.read import load_prompts, load_prompts_of_kind
from actor_tune.prompts.starter import starter
from actor_tune.publishing.published import _prompts
from actor_tune.records import file
from actor_tune.records.request import FitRequest, at_work
from actor_tune.records.response import Response, ResponseRow, prompt_row, response_of, response_row
from actor_tune.records.results import Results
from actor_tune.records.run import (
    AnsweredRate,
    Base,
    GateAnswer,
    Given,
    Position,
    Run,
    SetRefusal,
    Trial,
    YoursOf,
)
from actor_tune.repair.aims import Aims
from actor_tune.repair.direction import RefusalDirection
from actor_tune.repair.gate import YOURS_OF_CATEGORY, asked_of_users_own, yours_of
from actor_tune.repair.gated import fit
from actor_tune.repair.method import completed, fit_block, prepare
from actor_tune.repair.odds import Odds, RefusalStart
from actor_tune.repair.refusals import ASKED, Refusals, groups_asked
from actor_tune.repair.rules import HELD, ODDS_MARGINS, PSEUDO_HARMFUL, Shifts, boundary_targets, kind_codes, odds_loss
from actor_tune.repair.settings import Settings
from actor_tune.repair.strength import Limits, answered_rates, applied, choose, excess, rates_of, trials
from actor_tune.show.categories import category_rows, category_table, own_rows, own_table
from actor_tune.show.report.load import FitFolder, MeasureFolder
from actor_tune.show.report.page import page
from actor_tune.show.report.sets import strength_rows
from actor_tune.show.summary import summary
from conftest import make_prompts
from test_show import printed

MEDICINE = Aims(("Medicine",))


def filed(count=24, *names):
    """Prompts of each kind, of which the pseudo-harmful ones are of these categories in turn."""
    names = names or ("medicine", "security")
    return [
        replace(prompt, category=names[row % len(names)]) if prompt.kind == "pseudo_harmful" else prompt
        for row, prompt in enumerate(make_prompts(count))
    ]


def benign(name, category="", text="p"):
    return Prompt(f"{text} {name}", "pseudo_harmful", "mine", category=category)


def test_a_fingerprint_is_as_it_was_without_categories_and_another_with_them():
    prompt = Prompt("a", "harmful", "s")
    assert fingerprint([prompt]) == hashlib.sha256(json.dumps(["a", "harmful", "s"]).encode()).hexdigest()
    values = {fingerprint([replace(prompt, category=name)]) for name in ("", "medicine", "security")}
    assert len(values) == 3


def test_an_answer_is_to_the_prompt_whatever_it_is_filed_under():
    bare, medicine = benign(1), benign(1, "medicine")
    assert bare == medicine
    assert {bare: "answer"}[medicine] == "answer"
    assert distinct([bare, medicine, benign(1, "security")])[0].category == "medicine"


@pytest.mark.parametrize("suffix", ["csv", "tsv", "json", "jsonl", "parquet"])
@pytest.mark.parametrize("column", ["category", "topic"])
def test_categories_are_read_from_every_table_by_whatever_name(tmp_path, suffix, column):
    rows = [
        {"prompt": "a", "kind": "pseudo_harmful", column: " medicine "},
        {"prompt": "b", "kind": "pseudo_harmful", column: ""},
    ]
    path = tmp_path / f"mine.{suffix}"
    if suffix == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif suffix in ("csv", "tsv"):
        tab = "\t" if suffix == "tsv" else ","
        path.write_text("\n".join(tab.join(cells) for cells in [rows[0], *(row.values() for row in rows)]) + "\n")
    else:
        lines = map(json.dumps, rows)
        path.write_text("\n".join(lines) if suffix == "jsonl" else f"[{','.join(lines)}]")
    columns = {} if column == "category" else {"category": column}
    assert [prompt.category for prompt in load_prompts(path, columns)] == ["medicine", ""]
    assert [prompt.category for prompt in load_prompts_of_kind(path, "pseudo_harmful", columns)] == ["medicine", ""]


def test_a_category_that_is_no_text_is_none_and_that_is_said(tmp_path, caplog):
    path = tmp_path / "mine.jsonl"
    cells = (["a", "b"], {"a": True}, 3, None)
    path.write_text("".join(json.dumps({"prompt": "p", "kind": "harmful", "category": cell}) + "\n" for cell in cells))
    assert [prompt.category for prompt in load_prompts(path)] == ["", "", "3", ""]
    assert "2 of 4 rows have no text in `category`: no category" in caplog.text


def test_stored_rows_keep_a_category_and_leave_out_an_empty_one():
    for category in ("", "medicine"):
        prompt = benign(1, category)
        asked = file.row_json(prompt_row(prompt))
        answered = file.row_json(response_row(Response(prompt, "text", True)))
        assert [row.get("category", "") for row in (asked, answered)] == [category, category]
        assert ("category" in asked, "category" in answered) == (bool(category),) * 2
        assert response_of(file.convert(answered, ResponseRow, "row")).prompt.category == category


def test_a_store_of_a_version_without_categories_goes_on_and_its_answers_have_those_asked_now(tmp_path):
    bare, now = [benign(row) for row in range(4)], [benign(row, "medicine") for row in range(4)]

    def engine(prompts, _tokens):
        for row in range(len(prompts)):
            yield Answer(row, "text", True)

    store = tmp_path / "responses.jsonl"
    respond(engine, bare[:3], 3, store, portion=None)
    responses = respond(engine, now, 3, store, portion=None)
    assert [response.prompt.category for response in responses] == ["medicine"] * 4


def test_the_named_categories_are_freed_whatever_their_case_and_all_others_are_held():
    prompts = [benign(1, "medicine"), benign(2, " MEDICINE"), benign(3, "security"), benign(4)]
    assert list(map(MEDICINE.frees, prompts)) == [True, True, False, False]
    assert list(map(MEDICINE.holds, prompts)) == [False, False, True, True]
    assert all(map(MEDICINE.holds, of_kind(starter("train"), "pseudo_harmful")))
    others = [Prompt("a", "harmful", "s", category="security"), Prompt("a", "harmless", "s")]
    assert [prompt for prompt in others if MEDICINE.holds(prompt) or MEDICINE.frees(prompt)] == []
    assert [(Aims().frees(prompt), Aims().holds(prompt)) for prompt in prompts] == [(True, False)] * 4
    strengthen = Aims(strengthen=True)
    assert [(strengthen.holds(prompt), strengthen.beside(prompt)) for prompt in prompts] == [(True, False)] * 4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"categories": ("medicin",)},
            "`categories=medicin`: no pseudo_harmful prompt of 'medicin'; expected pseudo_harmful prompts by category: "
            "medicine 12, security 12; correct the name",
        ),
        ({"categories": ("rare",)}, "2 pseudo_harmful prompts; expected at least 8; .* security 12, rare 2, without a"),
        ({"categories": ("medicine",), "rule": "paper"}, "`rule=paper`, which moves all benign prompts alike"),
        ({"strengthen": True, "rule": "uniform"}, "`strengthen=True`: `rule=uniform`"),
        ({"categories": ("medicine",), "strengthen": True}, "`strengthen=True`: `categories=` beside it"),
    ],
)
def test_categories_that_cannot_be_freed_are_an_error_that_lists_those_there_are(changes, said):
    prompts = filed()
    if "rare" in said:
        prompts = [*prompts, *(benign(row, "rare") for row in range(2)), benign(9)]
    with pytest.raises(UserError, match=said):
        completed(prompts, Settings(**changes))


def test_categories_that_no_prompt_has_are_an_error():
    for prompts in (make_prompts(24), of_kind(filed(), "harmful")):
        with pytest.raises(UserError, match=r"no prompt with a category; .*`columns=category=TOPIC`"):
            completed(prompts, Settings(categories=("medicine",)))


def test_freed_prompts_are_trained_on_and_validated_on_though_they_are_few_in_a_large_set():
    prompts = [
        *make_prompts(24),
        *(benign(row) for row in range(300)),
        *(benign(row, "medicine") for row in range(300, 308)),
    ]
    for seed in range(20):
        split = prepare(prompts, Settings(categories=("medicine",), starter=False, seed=seed))
        assert sum(map(MEDICINE.frees, split.validation)) == 2
        assert sum(map(MEDICINE.frees, split.train)) == 6


def test_freed_prompts_that_are_alone_in_their_sets_are_an_error():
    prompts = [*make_prompts(24), *(replace(benign(row, "medicine"), set=f"s{row}") for row in range(8))]
    with pytest.raises(UserError, match="alone in their sets"):
        prepare(prompts, Settings(categories=("medicine",), starter=False))


def test_a_held_prompt_is_to_stay_where_it_is_by_the_boundary_rule():
    kinds = kind_codes(["pseudo_harmful", "pseudo_harmful", "harmful"], [False, True, False])
    assert kinds.tolist() == [PSEUDO_HARMFUL, HELD, 0]
    direction = RefusalDirection(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 0.0]))
    at = torch.tensor([[1.0, 1.0]] * 3)
    targets = boundary_targets(at, kinds, direction, Shifts(2.0, 1.0))
    assert targets.tolist() == [[-1.0, 1.0], [1.0, 1.0], [2.0, 1.0]]


@pytest.mark.parametrize("old", [-3.0, 0.0, 2.0])
def test_the_log_odds_of_a_held_prompt_are_held_on_both_sides_by_the_odds_rule(old):
    """As a divergence from what they were, which is least there, beside the weight of the movement."""
    kinds, at = kind_codes(["pseudo_harmful"], [True]), torch.zeros(1, 2)
    before = Odds(at, Slope(torch.tensor([old]), torch.tensor([[1.0, 0.0]])))
    loss = odds_loss(kinds, before, before, 0.0, ODDS_MARGINS)

    def at_odds(z):
        return loss(torch.tensor([[z - old, 0.0]]), torch.arange(1), None).item()

    p, q = torch.tensor(old).sigmoid(), torch.tensor(old + 1).sigmoid()
    divergence = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    expected = ODDS_MARGINS.harmless_odds * divergence + ODDS_MARGINS.hold_harmless * 1.0
    assert at_odds(old + 1) == pytest.approx(expected.item(), rel=1e-4)
    assert at_odds(old) == pytest.approx(0, abs=1e-6)
    assert min(at_odds(old + 1), at_odds(old - 1)) > 0.1


HARM = [Prompt("h", "harmful", "h"), Prompt("n", "harmless", "n")]


def by_strength(prompts, refused, aims):
    """Trials of `prompts`, whose first-token refusal at each strength is the row of `refused`."""

    def read(strength):
        chance = torch.tensor(refused[strength]).clamp(1e-6, 1 - 1e-6)
        return torch.stack([1 - chance, chance], dim=1).log()

    return trials(read, prompts, sorted(refused), None, RefusalStart(torch.tensor([1])), aims)


def test_compliance_counts_the_freed_ones_and_what_moves_the_held_ones_rules_a_strength_out():
    prompts = [*HARM, benign(1, "medicine"), *(benign(row, "security") for row in (2, 3)), benign(4), benign(5)]
    steady = {0.0: [0.9, 0.1, 0.9, 0.8, 0.8, 0.7, 0.7], 1.0: [0.9, 0.1, 0.2, 0.78, 0.82, 0.7, 0.7]}
    found = by_strength(prompts, steady, MEDICINE)
    assert [trial.compliance for trial in found] == pytest.approx([0.1, 0.8], abs=1e-5)
    assert [(item.name, item.n, round(item.drop, 4) + 0.0) for item in found[1].held] == [
        ("security", 2, 0.0),
        ("without a category", 2, 0.0),
    ]
    assert excess(found[1], Limits(), MEDICINE) == []
    for moved, said in ((0.5, "fell by 30.0"), (0.99, "rose by 19.0")):
        values = [0.9, 0.1, 0.2, moved, moved, 0.7, 0.7]
        found = by_strength(prompts, {0.0: steady[0.0], 1.0: values}, MEDICINE)
        assert len(reasons := excess(found[1], Limits(), MEDICINE)) == 1
        assert f"refusal of the held prompts security {said} points (at most 6.0" in reasons[0]
        assert choose(found, Limits(), MEDICINE).strength == 0
        assert excess(found[1], Limits(held_shift=0.4), MEDICINE) == []


def test_judged_answers_of_held_prompts_are_asked_counted_apart_and_limited_both_ways():
    prompts = [*HARM, benign(1, "medicine"), *(benign(row, "security") for row in range(2, 102))]
    groups = groups_asked(prompts, MEDICINE)
    assert [len(group) for group in groups] == [1, 1, 1, 100]
    assert [len(group) for group in groups_asked(prompts)] == [1, 1, 101, 0]
    asked = [prompt for group in groups for prompt in group[:ASKED]]
    said = [Response(prompt, "A plain answer to that.", True) for prompt in asked]
    verdicts = [Verdict("refusal" if prompt.kind != "harmless" else "compliance", 0.5, "") for prompt in asked]
    refusals = Refusals(asked, said, verdicts, RefusalStart(torch.tensor([1])), [], None, [*range(3, len(asked))])
    free = [Verdict("compliance", 0.5, "")] * len(asked)
    rates = {rate.name: rate for rate in answered_rates(refusals, said, free)}
    assert (rates["compliance"].n, rates["compliance"].rise) == (1, 1.0)
    assert (rates["held refused"].n, rates["held refused"].before, rates["held refused"].after) == (48, 1.0, 0.0)
    sets = [SetRefusal("h", "harmful", 0.9, 0.0, 0.0), SetRefusal("p", "pseudo_harmful", 0.1, 0.8, 0.0)]
    for rise, said_of in ((-0.2, "fell by 20.0"), (0.2, "rose by 20.0")):
        rate = AnsweredRate("held refused", 48, 0.5, 0.5 + rise, rise, 0.05)
        trial = Trial(1.0, 0.9, 0.9, 0.0, 0.0, 0.0, sets, [rate])
        assert excess(trial, Limits(), MEDICINE) == [
            f"by 48 judged answers, refusal of held prompts {said_of} points "
            "(at most 6.0 + 5.0 for the standard error = 11.0 are allowed)"
        ]


def test_of_a_users_own_prompts_each_category_is_asked_and_told_freed_or_held():
    names = ["medicine", "security", "law", "drugs", "war", "money"]
    given = [*make_prompts(3), *(benign(f"{name} {row}", name) for name in names for row in range(len(name)))]
    asked = asked_of_users_own(given, None, MEDICINE)
    counts = [sum(prompt.category == name for prompt in asked) for name in names]
    assert min(counts) >= min(YOURS_OF_CATEGORY, *(sum(p.category == name for p in given) for name in names))
    assert len(asked_of_users_own([*given, *(benign(row) for row in range(60))])) == 40
    answers = [
        GateAnswer(
            p.text, p.set, "no", "yes", "refusal", "compliance" if p.category == "medicine" else "refusal", p.kind
        )
        for p in asked
    ]
    answers = [replace(row, category=p.category or None) for row, p in zip(answers, asked, strict=True)]
    found = yours_of(given, answers, MEDICINE)
    assert (found.n, found.before, found.after) == (len(asked), 0, counts[0])
    of = {group.name: group for group in found.categories}
    n = sum(prompt.category == "medicine" for prompt in given)
    assert of["medicine"] == YoursOf("medicine", "freed", n, counts[0], 0, counts[0])
    assert (of["security"].aim, of["security"].after) == ("held", 0)
    assert own_rows(found)[0].name == "medicine"
    assert f"{counts[0]} of {n}" in printed(own_table(own_rows(found)))
    bare = [replace(prompt, category="") for prompt in given]
    assert yours_of(bare, [replace(row, category=None) for row in answers], Aims()).categories == []


SETTINGS = Settings("boundary", layer=1, starter=False, allow_unsafe=True, categories=("medicine",))


def judge(exchanges):
    return [Verdict("refusal" if "steal" in exchange.prompt else "compliance", 0.5, "") for exchange in exchanges]


def test_a_fit_moves_the_freed_prompts_and_hardly_the_held_ones(chat_model):
    plot = [benign(f"thing {row}", "security", "hijack a plot of") for row in range(20)]
    prompts = [*(prompt for prompt in filed(40) if prompt.category != "security"), *plot]
    found = fit_block(chat_model, prompts, replace(SETTINGS, limits=Limits(1, 1, 9, 1, 1, 1)), judge)
    moved = {name: [] for name in ("medicine", "security")}
    for prompt, before, after in zip(found.prompts, found.before, found.after, strict=True):
        if prompt.category:
            moved[prompt.category].append(after - before)
    mean = {name: sum(values) / len(values) for name, values in moved.items()}
    alike = fit_block(chat_model, prompts, replace(SETTINGS, categories=(), limits=Limits(1, 1, 9, 1, 1, 1)), judge)
    both = [
        after - before for p, before, after in zip(alike.prompts, alike.before, alike.after, strict=True) if p.category
    ]
    assert found.chosen.strength > 0
    assert mean["medicine"] < mean["security"]
    assert abs(mean["security"]) < 0.8 * abs(sum(both) / len(both))
    assert {position for epoch in found.epochs for position in epoch.position} == {
        "harmful",
        "harmless",
        "pseudo_harmful",
        "held",
    }
    assert [item.what for item in found.limits if "held" in item.what]


def test_a_fit_keeps_its_categories_in_all_that_it_writes(chat_model, tmp_path):
    found = fit(chat_model, filed(), SETTINGS, judge=judge)
    found.save(tmp_path / "run", export="none")
    record = file.read(Run, tmp_path / "run")
    assert record.settings["categories"] == ["medicine"]
    assert [(group.name, group.aim) for group in record.yours.categories] == [
        ("medicine", "freed"),
        ("security", "held"),
    ]
    assert record.trials[-1].held[0].name == "security"
    rows = json.loads((tmp_path / "run" / "positions.json").read_text())
    positions = [file.convert(row, Position, "row") for row in rows]
    assert {row.category for row in positions if row.kind == "pseudo_harmful"} == {"medicine", "security"}
    yours = file.read_rows(GateAnswer, tmp_path / "run" / "yours.jsonl")
    assert {row.category for row in yours} == {"medicine", "security"}
    given = [row.asked for row in file.read_rows(type(prompt_row(benign(1))), tmp_path / "run" / "prompts.jsonl")]
    assert fingerprint(given) == record.prompts_sha256


def test_a_fit_of_the_same_categories_goes_on_and_one_of_others_does_not(tmp_path):
    request = FitRequest(
        model="m",
        base_sha256="",
        placement={},
        chat_template_kwargs={},
        settings={"categories": ("medicine",)},
        margin=0.05,
        max_reasoning_tokens=1,
        judge="j",
        prompts_sha256="",
        versions={},
    )
    for _ in range(2):
        with at_work(tmp_path / "work", request):
            (tmp_path / "work" / "answers.jsonl").touch()
    other = replace(request, settings={"categories": ("security",)})
    with pytest.raises(UserError, match="begun with categories"), at_work(tmp_path / "work", other):
        pass


def test_a_fit_is_made_again_from_what_it_recorded_of_its_categories():
    settings = Settings(categories=("medicine",), strengthen=False)
    stored = json.loads(json.dumps(asdict(settings)))
    assert file.convert(stored, Settings, "run.json") == settings


def test_what_an_older_version_fitted_is_made_again_though_its_file_has_a_column_category(tmp_path):
    given = filed(9)
    plain = without_categories(given)
    kinds = {kind: Given(9, fingerprint(of_kind(plain, kind))) for kind in KINDS}
    made = SimpleNamespace(starter_sha256=None, prompts=kinds, prompts_sha256=fingerprint(plain))
    assert fingerprint(_prompts(made, tmp_path, given)) == fingerprint(plain)
    made.prompts = {kind: Given(9, fingerprint(of_kind(given, kind))) for kind in KINDS}
    made.prompts_sha256 = fingerprint(given)
    assert fingerprint(_prompts(made, tmp_path, given)) == fingerprint(given)


def test_answers_do_not_depend_on_categories_so_that_a_measurement_begun_without_goes_on():
    model = SimpleNamespace(
        name="m", engine="e", base_url=None, dtype="d", quantization="none", chat_template_kwargs={}
    )
    model.max_reasoning_tokens, model.engine_kwargs = 1, {}
    both = (filed(), without_categories(filed()))
    requests = [request_of(model, None, Questions(prompts, []), 3) for prompts in both]
    assert requests[0] == requests[1]


def test_the_report_of_a_fit_has_how_far_each_held_category_moved_at_each_strength():
    sets = [SetRefusal("h", "harmful", 0.9, 0.0, 0.0), SetRefusal("p", "pseudo_harmful", 0.1, 0.8, 0.0)]

    def tried(strength, *drops):
        held = [SetRefusal(name, "pseudo_harmful", 0.5, drop, 0.01, 4) for name, drop in zip("ab", drops, strict=True)]
        return Trial(strength, 0.9, 0.9, 0, 0, 0, sets, None, held)

    found = [tried(0.0, 0.0, 0.0), tried(1.0, 0.01, -0.05)]
    rows = [row for row in strength_rows(found, found[1]) if row.held]
    assert [(row.name, [cell.drop for cell in row.cells]) for row in rows] == [("b", [0.0, -0.05]), ("a", [0.0, 0.01])]
    run = Run(model=Base("m", "", 2), layer=1, trials=found, strength=1.0, settings=asdict(Settings(categories=("c",))))
    html = page([], [FitFolder("run", run, [], [], [])])
    assert "held, n = 4" in html
    assert "± (6.0 + 1.0)" in html
    assert "to free benign prompts of c, and to hold all others" in html
    assert rates_of(found[1])["refusal/held/b"] == 0.5


def results():
    """A measurement of two categories with a baseline: medicine went from 1 of 4 to 3 of 4 answered."""
    prompts = [benign(row, "medicine") for row in range(4)] + [
        Prompt(f"h{row}", "harmful", "h", category="medicine") for row in range(4)
    ]
    prompts += [benign(row, "security & co", "s") for row in range(4)]
    outcome = {"r": "refusal", "c": "compliance"}
    before, after = (
        [Verdict(outcome[letter], 0.5, "") for letter in said] for said in ("rrrcrrrrrrrr", "rcccrrrcrrrr")
    )
    responses = [Response(prompt, "An answer.", True) for prompt in prompts]
    then, now = (measured("m", responses, said) for said in (before, after))
    return prompts, Results(**vars(now), baseline=then, comparison=change(prompts, before, after))


def test_a_measurement_has_each_category_before_and_after_benign_answered_and_harmful_refused():
    _, found = results()
    rows = {(row.name, row.kind): row for row in category_rows(found)}
    medicine = rows["medicine", "pseudo_harmful"]
    assert (medicine.done, medicine.n, medicine.before.value, medicine.after.value) == ("answered", 4, 0.25, 0.75)
    assert medicine.change.value == 0.5
    assert medicine.change.low < 0.5 < medicine.change.high
    harm = rows["medicine", "harmful"]
    assert (harm.done, harm.before.value, harm.after.value, harm.change.value) == ("refused", 1.0, 0.75, -0.25)
    assert rows["security & co", "pseudo_harmful"].change.value == 0
    assert found.categories[0].refused == 1
    assert "75.0" in printed(category_table(category_rows(found)))


def test_prompts_without_a_category_make_no_table_of_them():
    responses = [Response(prompt, "An answer.", True) for prompt in make_prompts(3)]
    said = [Verdict("refusal", 0.5, "")] * len(responses)
    found = Results(**vars(measured("m", responses, said)))
    assert found.categories == category_rows(found) == []
    assert "By category" not in page([MeasureFolder("m", found, [], 0)], [])


def test_pages_show_each_category_with_its_interval(tmp_path):
    _, found = results()
    html = page([MeasureFolder("m", found, [], 0)], [])
    assert "<h3>By category</h3>" in html
    assert "security &amp; co" in html
    assert "category security & co" not in html
    found.save(tmp_path)
    lines = summary(tmp_path).splitlines()
    line = next(line for line in lines if line.startswith("| medicine (pseudo_harmful, answered)"))
    assert [cell.strip().split(" ")[0] for cell in line.split("|")[2:6]] == ["4", "25.0", "75.0", "+50.0"]


def test_held_categories_are_told_among_the_limits_the_worst_first():
    held = [
        SetRefusal("a", "pseudo_harmful", 0.5, 0.01, 0.0, 4),
        SetRefusal("b", "pseudo_harmful", 0.5, -0.04, 0.01, 4),
    ]
    sets = [SetRefusal("h", "harmful", 0.9, 0.0, 0.0), SetRefusal("p", "pseudo_harmful", 0.1, 0.8, 0.0)]
    told = [item.sentence for item in applied(Trial(1.0, 0.9, 0.9, 0, 0, 0, sets, None, held), Limits(), MEDICINE)]
    about = [line for line in told if "held" in line]
    assert about == [
        "refusal of the held prompts b rose by 4.0 points (at most 6.0 + 1.0 for the standard error = 7.0 are allowed)",
        "refusal of the held prompts a fell by 1.0 points (at most 6.0 are allowed)",
    ]
