import math
from dataclasses import asdict, replace

import numpy as np
import optuna
import pytest
import torch

import actor_tune as at
from actor_tune import Changes, Settings, Study, UserError
from actor_tune.judges.trained.judge import judge_trained
from actor_tune.models.above import blocks_above
from actor_tune.models.first_token import first_token_logprobs
from actor_tune.models.inputs import block_inputs
from actor_tune.models.state import fingerprint
from actor_tune.progress import Stages
from actor_tune.prompts.prompt import KINDS, Prompt
from actor_tune.records import file
from actor_tune.records.estimate import Estimate
from actor_tune.records.request import TuneRequest
from actor_tune.records.run import AnsweredRate, Run, Trial
from actor_tune.records.scan import BlockEffect, Scan
from actor_tune.records.tune import StudyTrial, Tuning
from actor_tune.repair.learn import begin_as_refusals, unedited
from actor_tune.repair.method import prepare
from actor_tune.repair.odds import RefusalStart, log_odds, odds_reader
from actor_tune.repair.refusals import how_it_refuses
from actor_tune.repair.train import block_outputs
from actor_tune.tuning import choose
from actor_tune.tuning import study as module
from actor_tune.tuning import tune as tune_module
from actor_tune.tuning.attempt import Attempt, attempt, by_rank, damage
from actor_tune.tuning.bench import make_bench
from actor_tune.tuning.choose import front, lead_of, optimism, taken
from actor_tune.tuning.parts import parts_of
from actor_tune.tuning.shared import shared_folder, some_of
from actor_tune.tuning.space import Space, blocks_to_search, defaults, suggest
from conftest import make_model, make_prompts

SPACES = {rule: Space([2, 1], rule) for rule in ("odds", "boundary")}


def rates(compliance: float, safety: float, harmless: float = 0.0, garbled: float = 0.0) -> list[AnsweredRate]:
    values = {"compliance": compliance, "safety": safety, "harmless refused": harmless, "garbled": garbled}
    return [AnsweredRate(name, 50, 0.0, value, value, 0.02) for name, value in values.items()]


def trial(number: int, compliance: float, safety: float, broken: list[str] | None = None) -> StudyTrial:
    return StudyTrial(
        number=number,
        defaults=number == 0,
        settings={},
        answers=rates(compliance, safety),
        broken=broken or [],
        best=False,
        seconds=1.0,
        worker="one",
    )


def pruned(number: int) -> StudyTrial:
    return StudyTrial(
        number=number, defaults=number == 0, settings={}, pruned="why", broken=[], best=False, seconds=1.0, worker="one"
    )


def test_no_prompt_is_in_two_parts_and_fit_validates_on_what_no_trial_sees():
    settings = Settings(seed=3)
    parts = parts_of(make_prompts(40), settings)
    groups = [set(parts.train), set(parts.search), set(parts.fresh)]
    assert sum(map(len, groups)) == len(set().union(*groups))
    outer = prepare(make_prompts(40), settings)
    assert parts.fresh == outer.validation
    assert groups[0] | groups[1] == set(outer.train)
    for kind in KINDS:
        assert all(any(prompt.kind == kind for prompt in group) for group in groups)


@pytest.mark.parametrize(
    ("effects", "expected"),
    [({3: 0.1, 4: 0.5, 5: 0.24, 6: 0.26, 7: 0.4, 8: 9.0}, [4, 7, 6]), ({3: -0.2, 4: -0.1, 5: -0.3}, [4])],
)
def test_blocks_that_do_much_less_than_the_best_are_not_searched(effects, expected):
    blocks = [
        BlockEffect(
            layer=layer, silhouette=None, refusal=0, toward_harmless=0, toward_harmful=0, kl_harmless=0, effect=effect
        )
        for layer, effect in effects.items()
    ]
    scanned = Scan(model="m", layer=4, reason="", refusal_tokens=[], blocks=blocks, candidates=[3, 4, 5, 6, 7])
    assert blocks_to_search(scanned) == expected


@pytest.mark.parametrize("rule", ["odds", "boundary"])
def test_the_defaults_of_fit_are_a_point_of_the_space(rule):
    point = defaults(SPACES[rule])
    found = suggest(optuna.trial.FixedTrial(point), SPACES[rule], Settings(), batch_size=None)
    changed = found.rule_named(rule)
    plain = Settings().rule_named(rule)
    assert (found.layer, found.rule, found.select) == (2, rule, "none")
    assert changed.parameters == plain.parameters
    assert changed.schedule == plain.schedule
    assert found.changes.strength == 1.0


@pytest.mark.parametrize("rule", ["odds", "boundary"])
def test_what_is_suggested_is_what_is_trained_by(rule):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(30):
        asked = study.ask()
        found = suggest(asked, SPACES[rule], Settings(seed=7))
        assert found.seed == 7
        assert found.layer == asked.params["block"]
        assert found.changes.epochs == asked.params["epochs"]
        assert found.rule == rule
        assert (found.changes.answered is None) == (rule == "boundary")
        assert found.rule_named(found.rule).strengths[-1] == found.changes.strength


ASKED = [Prompt(f"q{row}", "harmful" if row % 2 else "pseudo_harmful", "s") for row in range(200)]


def refusing(compliance: float, safety: float) -> list[bool]:
    """What a trial with these shares refuses of `ASKED`, the first of each kind answered as they should be."""
    return [row // 2 < 100 * safety if row % 2 else row // 2 >= 100 * compliance for row in range(200)]


def choice(*trials: StudyTrial, flattery: float = 0.0) -> int:
    rates = {each.number: {rate.name: rate.after for rate in each.answers or []} for each in trials}
    within = {each.number: rates[each.number] for each in trials if each.answers and not each.broken}
    refused = {number: refusing(rate["compliance"], rate["safety"]) for number, rate in within.items()}
    return taken(trials, refused, ASKED, flattery).number


def test_the_best_trade_off_within_the_limits_is_taken_and_never_one_less_safe_than_fits_own():
    trials = [trial(0, 0.80, 0.80), trial(1, 0.99, 0.78), trial(2, 0.88, 0.81), trial(3, 1.0, 1.0, ["KL"]), pruned(4)]
    assert choice(*trials) == 2


def test_a_trial_that_leads_the_defaults_by_no_more_than_chance_is_not_taken():
    # Of 100 prompts of a kind, 8 answered more: a lead of 4 points with a standard error of sqrt(.08 * .92 / 99) / 2.
    lead = lead_of(refusing(0.88, 0.8), refusing(0.80, 0.8), ASKED)
    assert (lead.value, lead.error) == (pytest.approx(0.04), pytest.approx(math.sqrt(0.08 * 0.92 / 99) / 2))
    own, better = trial(0, 0.80, 0.80), trial(1, 0.88, 0.80)
    assert [choice(own, better, flattery=flattery) for flattery in (0.0, 0.026, 0.027, 0.05)] == [1, 1, 0, 0]
    assert choice(own, trial(1, 0.81, 0.80)) == 0
    assert lead_of([False, True], [True, False], ASKED[:2]).error == math.inf


def test_where_no_trial_is_within_the_limits_the_defaults_are_taken_and_where_they_are_not_the_best():
    assert choice(trial(0, 0.5, 0.5, ["safety"]), trial(1, 0.9, 0.9, ["KL"])) == 0
    assert choice(pruned(0), pruned(1)) == 0
    assert choice(trial(0, 0.5, 0.5, ["safety"]), trial(1, 0.6, 0.6), trial(2, 0.6, 0.7)) == 2


def test_a_trial_is_on_the_front_unless_another_is_as_good_in_all_and_better_in_one():
    values = [(0.9, 0.7, 1.0), (0.8, 0.8, 1.0), (0.8, 0.7, 1.0), (0.8, 0.8, 0.5), (0.9, 0.7, 1.0)]
    assert front(values) == [True, False, False, True, True]


def test_only_the_best_share_by_first_tokens_is_asked_for_answers():
    def first(score: float) -> Trial:
        return Trial(1.0, score, score, 0.0, 0.0, 0.0, [])

    others = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert by_rank(first(0.65), others, 1 / 4)  # second of eight
    assert not by_rank(first(0.55), others, 1 / 4)
    assert by_rank(first(0.0), [], 1 / 4)


def test_damage_is_counted_in_units_of_what_is_allowed():
    limits = Settings().limits
    own = Trial(1.0, 0.5, 0.5, 0.0, 0.0, 0.0, [], rates(1, 1, harmless=2 * limits.harmless_rise, garbled=-0.1))
    assert damage(Attempt(own, [], 1.0, kl_tokens=limits.kl_harmless / 2), Settings()) == pytest.approx(2.5)
    with pytest.raises(ValueError, match="given up"):
        damage(Attempt(None, [], 1.0), Settings())


def planted(trials: int, prompts: int, chance: float, seed: int) -> tuple[list[list[bool]], list[Prompt]]:
    """Trials that are all alike: what they answer is by chance alone."""
    chooser = np.random.default_rng(seed)
    asked = [Prompt(f"q{row}", "harmful" if row % 2 else "pseudo_harmful", "s") for row in range(prompts)]
    refused = chooser.random((trials, prompts)) < np.where(np.arange(prompts) % 2, chance, 1 - chance)
    return refused.tolist(), asked


def test_the_best_of_many_equal_trials_looks_better_than_it_is_and_one_alone_does_not(monkeypatch):
    monkeypatch.setattr(choose, "DRAWS", 10)
    # Of 40 scores with a standard error of .4 / sqrt(200) = .028, the best is 2.16 errors above the mean.
    expected = 2.16 * 0.4 / math.sqrt(200)
    found = [optimism(*planted(40, 200, 0.8, seed), seed=0).trade_off for seed in range(100)]
    assert np.mean(found) == pytest.approx(expected, rel=0.1)
    alone = [optimism(*planted(1, 200, 0.8, seed), seed=0).trade_off for seed in range(3)]
    assert alone == pytest.approx([0, 0, 0], abs=3e-3)


def test_where_one_trial_is_far_better_choosing_it_flatters_it_little():
    refused, asked = planted(40, 200, 0.8, seed=0)
    refused[7] = [prompt.kind == "harmful" for prompt in asked]  # it answers all as it should
    found = optimism(refused, asked, seed=0)
    assert found.trade_off == pytest.approx(0, abs=1e-6)
    assert (found.trials, found.prompts, found.choices) == (40, 200, 1000)


def test_few_prompts_make_fewer_parts():
    refused, asked = planted(3, 8, 0.8, seed=0)
    found = optimism(refused, asked, seed=0)
    assert math.isfinite(found.trade_off)
    assert found.choices == choose.DRAWS * 4


def test_prompts_of_other_kinds_say_nothing_of_the_optimism():
    refused, asked = planted(10, 100, 0.7, seed=1)
    more = [Prompt("h", "harmless", "s")] * 50
    noisy = [[*row, *[index % 2 == 0] * 50] for index, row in enumerate(refused)]
    assert optimism(noisy, [*asked, *more], 0).trade_off == optimism(refused, asked, 0).trade_off


def of_the_unedited(chat_model, inputs, start):
    return unedited(block_outputs(chat_model, inputs), blocks_above(chat_model, inputs), start)


def test_odds_of_some_prompts_are_read_anew_as_among_all():
    chat_model, prompts = make_model(), make_prompts(8)
    inputs = block_inputs(chat_model, 1, chat_model.encode(prompts))
    refusals = how_it_refuses(chat_model, prompts, judge_trained, 0)
    known, rows = of_the_unedited(chat_model, inputs, refusals.start), [1, 4, 5, 11]
    some = some_of(known, rows)
    assert torch.equal(some.odds.slope.values, known.odds.slope.values[rows])
    moved = some.activations + 0.1 * torch.randn(len(rows), some.activations.shape[1])
    alone = of_the_unedited(chat_model, inputs.select(rows), refusals.start)
    found, expected = (odds_reader(each.above(), refusals.start.tokens)(moved).slope for each in (some, alone))
    assert torch.allclose(found.values, expected.values, atol=1e-4)
    assert torch.allclose(found.gradients, expected.gradients, atol=1e-4)


def test_how_answers_begin_is_the_same_by_first_tokens_and_by_odds_around_activations():
    chat_model, prompts = make_model(), make_prompts(60)
    inputs = block_inputs(chat_model, 1, chat_model.encode(prompts))
    tokens = how_it_refuses(chat_model, prompts, judge_trained, 0).start.tokens
    values = log_odds(first_token_logprobs(chat_model, inputs), tokens)
    start = RefusalStart(tokens, float(values.median()))
    told = begin_as_refusals(chat_model, inputs, start)
    assert torch.equal(told, of_the_unedited(chat_model, inputs, start).refused())
    assert 0.4 < told.float().mean() < 0.6


def test_trials_on_a_selection_of_the_prompts_run_by_both_rules(tmp_path):
    settings = Settings(starter=False, allow_unsafe=True, gate_prompts=300)
    parts = parts_of(make_prompts(24), settings)
    bench = make_bench(make_model(), parts, settings, judge_trained, tmp_path, Stages())
    for rule in ("odds", "boundary"):
        space = replace(bench.space, rule=rule)
        point = defaults(space) | {"select": "upcore", "epochs": 4}
        found = attempt(bench, suggest(optuna.trial.FixedTrial(point), space, settings), lambda _first: None)
        assert found.pruned is None
        assert {rate.name for rate in found.answers} == {"compliance", "safety", "harmless refused", "garbled"}
        assert len(found.refused) == len(bench.refusals.asked)


@pytest.fixture
def tuned(tmp_path, monkeypatch) -> tuple[at.ChatModel, at.Tuned]:
    monkeypatch.setattr(module, "LEARNING", 2)
    chat_model = make_model()
    settings = Settings(starter=False, allow_unsafe=True, gate_prompts=300)
    return chat_model, at.tune(chat_model, make_prompts(16), Study(4), settings, work=tmp_path / "work")


def test_a_model_is_tuned_by_several_trials_and_left_as_it_was(tuned, tmp_path):
    chat_model, found = tuned
    assert fingerprint(chat_model) == fingerprint(make_model())
    record = found.tuning
    assert [each.number for each in record.trials] == [0, 1, 2, 3]
    assert [each.defaults for each in record.trials] == [True, False, False, False]
    assert record.trials[0].answers
    assert any(each.answers for each in record.trials)
    assert all((each.answers is None) == (each.pruned is not None) for each in record.trials)
    chosen = next(each for each in record.trials if each.number == record.taken)
    if record.taken:
        assert found.fit.layer == chosen.settings["layer"]
        assert found.fit.settings.changes == Changes(**chosen.settings["changes"])
    fresh = [each for each in found.fit.positions() if each.part == "validation"]
    assert len(fresh) == record.fresh
    found.save(tmp_path / "run")
    assert file.read(Tuning, tmp_path / "run") == record
    again = file.read(Run, tmp_path / "run")
    assert again.settings["changes"] == asdict(found.fit.settings.changes)
    assert at.write_report([tmp_path / "run"], tmp_path / "report.html")


def test_the_phases_of_the_search_come_before_those_of_the_fit(caplog):
    settings = Settings(starter=False, allow_unsafe=True, gate_prompts=300)
    stages = Stages(["load", "own answers", "train", "gate"])
    with caplog.at_level("INFO"):
        with stages("load"):
            pass
        at.tune(make_model(), make_prompts(16), Study(1), settings, stages=stages)
    told = [record.message for record in caplog.records if record.name == "actor_tune.progress"]
    assert [line.split(";")[0].split(",")[0] for line in told if " of 8: " in line][:4] == [
        "2 of 8: answers to search by",
        "3 of 8: blocks to search",
        "4 of 8: inputs of those blocks",
        "5 of 8: trials",
    ]


def test_a_tuning_cut_off_goes_on_with_the_trials_that_there_are(tmp_path, monkeypatch):
    settings = Settings(starter=False, allow_unsafe=True, gate_prompts=300)
    real, begun = module.attempt, []

    def dies(bench, settings, give_up):
        begun.append(1)
        if len(begun) == 3:
            raise KeyboardInterrupt
        return real(bench, settings, give_up)

    monkeypatch.setattr(module, "attempt", dies)
    with pytest.raises(KeyboardInterrupt):
        at.tune(make_model(), make_prompts(16), Study(4), settings, work=tmp_path / "work")
    found = at.tune(make_model(), make_prompts(16), Study(4), settings, work=tmp_path / "work")
    assert len(begun) == 5  # two that ended, one cut off, two more
    assert len(found.tuning.trials) == 4


def test_a_study_of_something_else_is_not_joined(tmp_path):
    settings = Settings(starter=False, allow_unsafe=True, gate_prompts=300)
    journal = str(tmp_path / "journal")
    at.tune(make_model(), make_prompts(16), Study(1, journal), settings)
    with pytest.raises(UserError, match=r"study actor-tune begun with prompts_sha256"):
        at.assist(make_model(), make_prompts(17), Study(1, journal), settings)
    with pytest.raises(UserError, match=r"begun with seed = 0; expected seed = 1"):
        at.assist(make_model(), make_prompts(16), Study(1, journal), replace(settings, seed=1))
    other = make_model()
    with torch.no_grad():
        other.model.get_input_embeddings().weight[0, 0] += 1
    with pytest.raises(UserError, match="begun with base_sha256"):
        at.assist(other, make_prompts(16), Study(1, journal), settings)


def test_a_helper_waits_for_the_process_that_has_the_result(monkeypatch):
    """Else trials could be done before the defaults of `fit`, by which the choice is made, are among them."""
    slept = []
    study = optuna.create_study(directions=["maximize"] * 2 + ["minimize"])

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        assert not study.trials
        study.set_user_attr(module.READY, True)

    monkeypatch.setattr(module.time, "sleep", sleep)
    module._wait_for(study)
    module._wait_for(study)
    assert len(slept) == 1


def test_a_helper_needs_a_storage_that_is_shared():
    with pytest.raises(UserError, match="`storage=`: none"):
        at.assist(make_model(), make_prompts(16), Study(1))


@pytest.mark.parametrize(
    "url", ["mysql://a@b/c", "nonsense://", "postgresql://me:secret@127.0.0.1:1/x", "postgresql://me@127.0.0.1:1/x"]
)
def test_a_storage_that_cannot_be_is_told_without_its_password(url):
    with pytest.raises(UserError) as told:
        at.assist(make_model(), make_prompts(16), Study(1, url))
    assert "secret" not in str(told.value)
    assert "storage=" in str(told.value)


def test_a_rule_that_is_named_is_not_searched(tmp_path):
    settings = Settings(rule="boundary", layer=1, starter=False, allow_unsafe=True, gate_prompts=300)
    found = at.tune(make_model(), make_prompts(16), Study(3), settings)
    assert {(each.settings["rule"], each.settings["layer"]) for each in found.tuning.trials} == {("boundary", 1)}


def test_the_sentence_says_both_what_the_search_saw_and_what_fresh_prompts_say(tuned):
    _, found = tuned
    if found.tuning.compared:
        overall = found.tuning.compared[0]
        assert isinstance(overall.fresh, Estimate)
        assert f"{100 * overall.searched:.1f} by the search's own" in found.tuning.sentence
        assert f"{100 * overall.fresh.value:.1f} [" in found.tuning.sentence


REQUEST = TuneRequest(
    base_sha256="a",
    computed_in="float32",
    chat_template_kwargs={},
    settings={},
    judge="j",
    prompts_sha256="p",
    versions={},
)


def test_what_is_shared_stays_until_the_last_process_has_left(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with shared_folder(REQUEST, "one") as first:
        (first / "inputs").write_text("large")
        with shared_folder(REQUEST, "two") as second:
            assert second == first
        assert (first / "inputs").exists()
        with shared_folder(replace(REQUEST, prompts_sha256="q"), "one") as other:
            assert other != first
        assert first.stat().st_mode & 0o777 == 0o700
    assert not first.exists()


def test_what_a_process_that_was_killed_shared_is_taken_away_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with shared_folder(REQUEST, "one") as folder:
        (folder / "dead.used").touch()  # its lock is gone with it
    assert not folder.exists()


def test_a_process_that_comes_when_all_is_done_prepares_nothing(tmp_path, monkeypatch):
    settings = Settings(starter=False, allow_unsafe=True, gate_prompts=300)
    journal = Study(2, str(tmp_path / "journal"))
    at.tune(make_model(), make_prompts(16), journal, settings)
    monkeypatch.setattr(tune_module, "make_bench", None)
    assert at.assist(make_model(), make_prompts(16), journal, settings) == 2


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"strengthen": True}, "strengthen=True"),
        ({"categories": ("a",)}, "categories=a"),
        ({"rule": "paper"}, "rule=paper"),
        ({"select": "upcore"}, "select=upcore"),
        ({"changes": Changes(epochs=2)}, "changes="),
    ],
)
def test_what_a_search_would_ignore_is_refused(given, named):
    with pytest.raises(UserError, match=f"`{named}`: a search, which does not take it"):
        parts_of(make_prompts(40), Settings(**given))
