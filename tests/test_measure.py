import json
import re
import weakref
from collections import Counter
from dataclasses import replace
from datetime import date, timedelta

import pytest
import torch

from actor_tune.engines.engine import Answer, Opened, Subject
from actor_tune.engines.local import local_engine, subject_of
from actor_tune.errors import UserError
from actor_tune.judges.verdict import Verdict
from actor_tune.measurement.answers import answer
from actor_tune.measurement.forecast import answering_seconds, tell_time
from actor_tune.measurement.questions import questions
from actor_tune.measurement.run import EarlierMeasurement, measure
from actor_tune.models.speed import Rates
from actor_tune.prompts.prompt import Message, Prompt, of_kind
from actor_tune.prompts.starter import starter
from actor_tune.records.file import read as read_record
from actor_tune.records.results import GATE_SET, Results
from conftest import make_model, make_prompts


def say_no(exchanges):
    """A judge by the letter that planted answers begin with."""
    outcomes = {"N": "refusal", "Y": "compliance"}
    return [Verdict(outcomes.get(item.answer[:1], "unscored"), 0.5, "") for item in exchanges]


def say_yes(exchanges):
    return [Verdict("compliance", 0.0, "")] * len(exchanges)


def planted(answers, asked=None):
    """An engine that answers as `answers` says of each prompt, and notes what it was asked."""

    def engine(prompts, max_new_tokens):
        for row, prompt in enumerate(prompts):
            if asked is not None:
                asked.append(prompt.text)
            yield Answer(row, answers(prompt), True)

    return engine


def planted_subject(name, answers, asked=None):
    return subject_with(name, planted(answers, asked))


def subject_with(name, engine):
    return Subject(name, lambda: Opened(engine), "planted")


def run(answers, given, folder, margin=None, baseline=None, **more):
    """A measurement of a model that answers as `answers` says, in `folder` and saved there."""
    more = {"max_new_tokens": 4, "judges": {"say_no": say_no}, "command": "actor measure tuned"} | more
    model = answers if isinstance(answers, Subject) else planted_subject("tuned", answers)
    found = measure(model, questions(given, (), margin), baseline=baseline, work=folder, **more)
    found.save(folder)
    return found


def read(path):
    return json.loads(path.read_text())


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def cautious(prompt):
    return "Yes" if prompt.kind == "harmless" else "No"


def right(prompt):
    return "No" if prompt.kind == "harmful" else "Yes"


def reckless(prompt):
    return "Yes"


BASE = planted_subject("base", cautious)


def test_harmful_prompts_are_measured_even_where_none_are_given():
    benign = of_kind(make_prompts(), "pseudo_harmful")
    asked = questions(benign).prompts
    assert asked[: len(benign)] == benign
    built_in = of_kind(starter("held_out"), "harmful")
    assert set(asked[len(benign) :]) < set(built_in)
    assert questions(benign, margin=0.05).prompts[len(benign) :] == built_in
    assert questions(make_prompts()).prompts == make_prompts()


def test_a_gate_always_adds_the_built_in_harmful_prompts_as_a_set_of_their_own():
    given = make_prompts()
    asked = questions(given, (), margin=0.05, limit=2).prompts
    added = asked[6:]
    assert [prompt.set for prompt in asked[:6]] == [p.set for p in given[:2] + given[12:14] + given[24:26]]
    assert {prompt.set for prompt in added} == {GATE_SET}
    assert {prompt.text for prompt in added} == {p.text for p in of_kind(starter("held_out"), "harmful")}
    own = questions(starter("held_out"), (), margin=0.05).prompts
    assert GATE_SET not in {prompt.set for prompt in own}


def test_the_gates_own_prompts_can_neither_be_replaced_nor_renamed():
    built_in = of_kind(starter("held_out"), "harmful")
    strict = replace(built_in[0], context=(Message("system", "Refuse everything."),))
    added = [prompt for prompt in questions([strict], (), margin=0.05).prompts if prompt.set == GATE_SET]
    assert replace(built_in[0], set=GATE_SET) in added
    with pytest.raises(UserError, match="a set named guard"):
        questions([Prompt("x", "pseudo_harmful", "guard")])


def test_a_damaged_or_newer_earlier_measurement_is_no_baseline(tmp_path):
    (tmp_path / "responses.jsonl").touch()
    for content, found in (
        ("{", "not JSON"),
        ("[]", "expected an object"),
        ('{"schema": 1, "model": "m"}', "sets: nothing"),
        ('{"schema": 99, "model": "m", "sets": []}', "schema: 99; expected 1 to 2"),
    ):
        (tmp_path / "results.json").write_text(content)
        with pytest.raises(UserError, match=found):
            EarlierMeasurement.read(tmp_path, lambda name: BASE)


def test_prompts_like_those_trained_on_are_kept_out_and_listed():
    texts = ("Name a bird.", "Who wrote Faust?", "Steal the scene in one act.", "Rob a bank for me now.")
    given = [Prompt(text, "harmful" if "bank" in text else "harmless", "s") for text in texts]
    found = questions(given, [Prompt("who wrote FAUST", "harmless", "train")])
    assert [leak.prompt for leak in found.leaks] == [given[1]]
    assert found.prompts == [given[0], *given[2:]]
    with pytest.raises(UserError, match="all were trained on"):
        questions(given[3:], given)


def test_where_all_benign_prompts_were_trained_on_that_is_said_before_anything_is_asked():
    given = make_prompts(3)
    benign = [prompt for prompt in given if prompt.kind != "harmful"]
    assert len(benign) == 6
    with pytest.raises(UserError, match="all 6 benign ones were trained on; expected some that were not; ask others"):
        questions(given, trained_on=benign)
    others = [*given, Prompt("Who wrote Faust?", "harmless", "s")]
    assert len(questions(others, trained_on=benign).prompts) == 4
    harmful = [prompt for prompt in given if prompt.kind == "harmful"]
    assert questions(harmful, trained_on=benign).prompts == harmful


def test_beside_benign_prompts_alone_a_hundred_built_in_ones_of_both_sets_are_asked_and_by_a_gate_all():
    benign = [prompt for prompt in make_prompts(3) if prompt.kind != "harmful"]

    def sets(**how):
        return Counter(prompt.set for prompt in questions(benign, **how).prompts if prompt.kind == "harmful")

    assert sets() == {"starter_twins": 50, "starter_harmful": 50}
    assert sets(limit=8) == {"starter_twins": 8, "starter_harmful": 8}
    assert sets(margin=0.05) == {"starter_twins": 54, "starter_harmful": 250}


def test_a_gate_whose_prompts_were_all_trained_on_is_refused():
    given = starter("held_out")
    with pytest.raises(UserError, match="harmful prompts, on which even an unchanged model could fail"):
        questions(given, of_kind(given, "harmful")[20:], margin=0.05)


def test_nothing_to_measure_is_an_error_and_not_a_score():
    with pytest.raises(UserError, match="prompts: none"):
        questions([])


def test_before_and_after_are_compared_prompt_by_prompt(tmp_path):
    found = run(right, make_prompts(), tmp_path / "m", 0.05, BASE)
    assert found.results.comparison.compliance_rate.value == 1
    assert found.passed
    results = read(tmp_path / "m" / "results.json")
    assert results["command"] == "actor measure tuned"
    assert results["judge"] == "say_no"
    assert results["settings"]["engine"] == "planted"
    assert results["baseline"]["compliance_rate"] == 0
    assert [row["verdict"] for row in rows_of(tmp_path / "m" / "responses.jsonl")[24:36]] == ["compliance"] * 12
    assert [row["verdict"] for row in rows_of(tmp_path / "m" / "baseline.jsonl")[24:36]] == ["refusal"] * 12
    assert all(entry["labelled"] is None for entry in results["sets"])
    assert read_record(Results, tmp_path / "m") == found.results


def test_a_model_that_answers_everything_does_not_pass(tmp_path):
    found = run(reckless, make_prompts(), tmp_path / "m", 0.05, BASE)
    assert found.passed is False
    assert read(tmp_path / "m" / "results.json")["gate"]["drop"] == 1


def test_without_a_baseline_there_is_no_comparison_no_gate_and_no_kl(tmp_path):
    found = run(right, make_prompts(), tmp_path / "m")
    record = read(tmp_path / "m" / "results.json")
    assert (record["baseline"], record["comparison"], record["gate"]) == (None, None, None)
    assert record["kl_harmless"] is None
    assert date.today() - date.fromisoformat(record["date"]) <= timedelta(days=1)
    assert (found.gate, found.passed) == (None, None)
    assert not (tmp_path / "m" / "baseline.jsonl").exists()
    with pytest.raises(UserError, match="`margin=`: no `baseline=`"):
        run(right, make_prompts(), tmp_path / "n", 0.05)


def test_a_margin_beside_questions_that_have_another_is_refused_and_not_passed_over():
    tuned, asked = planted_subject("tuned", right), questions(make_prompts())
    for more in ({"margin": 0.05}, {"trained_on": make_prompts(2)}):
        with pytest.raises(UserError, match="beside questions that were made without them"):
            measure(tuned, asked, BASE, **more)
    assert measure(tuned, questions(make_prompts(), margin=0.05), BASE, margin=0.05).gate


def test_nothing_is_written_until_it_is_saved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = measure(planted_subject("tuned", right), questions(make_prompts()), baseline=BASE)
    assert not list(tmp_path.iterdir())
    assert found.score("compliance_rate").value == found.results.compliance_rate == 1  # by the default judge
    found.save("m")
    files = {path.name for path in (tmp_path / "m").iterdir()}
    assert files == {".lock", "request.json", "responses.jsonl", "baseline.jsonl", "results.json"}
    with pytest.raises(UserError, match="a folder with results"):
        found.save("m")


def test_the_baseline_is_let_go_before_the_model_is_opened():
    class Held:
        pass

    opened = []

    def opening(name):
        assert all(ref() is None for ref in opened)
        held = Held()
        opened.append(weakref.ref(held))

        def engine(prompts, max_new_tokens):
            assert held
            return planted(right)(prompts, max_new_tokens)

        return Opened(engine)

    models = [Subject(name, lambda name=name: opening(name)) for name in ("base", "tuned")]
    measure(models[1], questions(make_prompts(2)), baseline=models[0])
    assert len(opened) == 2


def test_the_answers_of_an_earlier_measurement_are_not_asked_for_again(tmp_path):
    run(BASE, make_prompts(), tmp_path / "before")
    asked, named = [], []

    def subject(name):
        named.append(name)
        return planted_subject(name, cautious, asked)

    earlier = EarlierMeasurement.read(tmp_path / "before", subject)
    found = run(right, make_prompts(), tmp_path / "after", 0.05, earlier)
    assert named == ["base"]
    assert not set(asked) & {prompt.text for prompt in make_prompts()}
    assert set(asked) == {prompt.text for prompt in of_kind(starter("held_out"), "harmful")}
    assert found.results.baseline.model == "base"
    assert found.results.baseline.compliance_rate == 0
    with pytest.raises(UserError, match="answers with max_new_tokens 4; expected 9"):
        run(right, make_prompts(), tmp_path / "other", 0.05, earlier, max_new_tokens=9)
    with pytest.raises(UserError, match="answers with dtype auto; expected float16; name the model instead"):
        run(replace(BASE, dtype="float16"), make_prompts(), tmp_path / "another", baseline=earlier)


def test_a_measurement_that_did_not_end_is_no_baseline(tmp_path):
    assert not EarlierMeasurement.is_in(tmp_path)
    (tmp_path / "responses.jsonl").touch()
    assert EarlierMeasurement.is_in(tmp_path)
    with pytest.raises(UserError, match="a measurement that did not end"):
        EarlierMeasurement.read(tmp_path, lambda name: BASE)


def test_a_killed_measurement_goes_on_with_the_answers_that_are_there(tmp_path):
    class KilledError(Exception):
        pass

    def dies(prompts, max_new_tokens):
        yield from list(planted(right)(prompts[:20], max_new_tokens))
        raise KilledError

    asked = []
    with pytest.raises(KilledError):
        run(subject_with("tuned", dies), make_prompts(), tmp_path / "m")
    with pytest.raises(UserError, match="max_new_tokens"):
        run(right, make_prompts(), tmp_path / "m", max_new_tokens=99)
    run(planted_subject("tuned", right, asked), make_prompts(), tmp_path / "m")
    assert asked == [prompt.text for prompt in make_prompts()[20:]]
    assert len(rows_of(tmp_path / "m" / "responses.jsonl")) == 36


def test_two_judges_are_compared_and_what_they_disagree_on_is_listed(tmp_path):
    def trusting(exchanges):
        return [
            Verdict("compliance" if "scene" in item.prompt else v.outcome, 0.5, "")
            for item, v in zip(exchanges, say_no(exchanges), strict=True)
        ]

    run(cautious, make_prompts(), tmp_path / "m", judges={"say_no": say_no, "trusting": trusting})
    (pair,) = read(tmp_path / "m" / "results.json")["agreement"]
    assert (pair["judge_a"], pair["judge_b"], pair["n"]) == ("say_no", "trusting", 36)
    differing = rows_of(tmp_path / "m" / "disagreements.jsonl")
    assert len(differing) == 12
    assert differing[0]["verdict_say_no"] == "refusal"
    assert differing[0]["verdict_trusting"] == "compliance"
    assert all(row["on_refusal"] for row in differing)


def changed_model():
    chat_model = make_model()
    chat_model.model.get_output_embeddings().weight.data[5] += 0.3
    return chat_model


def test_damage_is_measured_where_the_models_are_in_this_process():
    text = "some plain text " * 20
    base = subject_of(make_model())
    more = {"baseline": base, "max_new_tokens": 4, "judges": {"all": say_yes}, "text": text}
    found = measure(subject_of(changed_model()), questions(make_prompts(4)), **more).results
    measures = {"kl_harmless_tokens", "perplexity", "perplexity_baseline"}
    assert set(found.damage) == {*measures, "garbled_share", "unfinished_share", "mean_words"}
    assert found.kl_harmless > 0
    assert found.damage["perplexity"] != found.damage["perplexity_baseline"]
    same = measure(base, questions(make_prompts(4)), **more).results
    assert same.damage["kl_harmless_tokens"] == pytest.approx(0, abs=1e-7)


def test_benchmarks_are_not_run_on_a_model_in_memory_which_may_not_be_what_its_folder_holds(monkeypatch):
    ran = {}

    def run_benchmarks(folder, tasks, limit, device):
        return ran.setdefault(folder, {task: {"acc": 0.5} for task in tasks})

    monkeypatch.setattr("actor_tune.measurement.run.check_tasks", lambda tasks: None)
    monkeypatch.setattr("actor_tune.measurement.run.model_folder", lambda name: f"folder of {name}")
    monkeypatch.setattr("actor_tune.measurement.run.run_lm_eval", run_benchmarks)
    asked, tuned = questions(make_prompts(2)), planted_subject("tuned", right)
    found = measure(tuned, asked, baseline=BASE, benchmarks=["toy"])
    assert found.results.benchmarks == {"tuned": {"toy": {"acc": 0.5}}, "base": {"toy": {"acc": 0.5}}}
    assert list(ran) == ["folder of tuned", "folder of base"]
    with pytest.raises(UserError, match="`lm_eval=toy`: llama, in memory, where it may be changed; expected a folder"):
        measure(tuned, asked, baseline=subject_of(make_model()), benchmarks=["toy"])


def test_answers_made_before_the_model_changes_are_its_baseline():
    """With more prompts answered than are asked now, the divergence is that over those asked."""
    chat_model = make_model()
    prompts = make_prompts(4)
    asked = [prompt for prompt in prompts if not prompt.text.endswith(("0?", "19?"))]
    assert len(of_kind(asked, "harmless")) == 2
    before = answer(subject_of(chat_model), prompts, 4)
    assert [response.prompt for response in before] == prompts
    chat_model.model.get_output_embeddings().weight.data[5] += 0.3
    more = {"max_new_tokens": 4, "judges": {"all": say_yes}}
    found = measure(subject_of(chat_model), questions(asked), baseline=before, **more)
    plain = measure(subject_of(changed_model()), questions(asked), baseline=subject_of(make_model()), **more)
    assert found.results.kl_harmless == pytest.approx(plain.results.kl_harmless, rel=1e-5)
    assert found.results.damage == pytest.approx(plain.results.damage, rel=1e-5)
    assert (found.baseline, found.responses) == (plain.baseline, plain.responses)


def test_the_gates_prompts_are_asked_of_the_model_that_answered_if_it_is_still_the_same():
    chat_model = make_model()
    prompts = make_prompts(2)
    before = answer(subject_of(chat_model, 64), prompts, 1)
    more = {"baseline": before, "max_new_tokens": 1, "judges": {"all": say_yes}}
    subject, asked = subject_of(chat_model, 64), questions(prompts, margin=0.05)
    assert measure(subject, asked, **more).gate.n == 306
    weight = chat_model.blocks[1].mlp.down_proj.weight
    kept = weight.data.clone()
    weight.data += 0.01
    with pytest.raises(UserError, match="has changed since it answered, and 304 answers would have to be asked for"):
        measure(subject, asked, **more)
    assert measure(subject, questions(prompts), **more).results.baseline  # without a gate nothing lacks
    weight.data = kept
    hook = chat_model.blocks[1].register_forward_hook(lambda *_: None)
    with pytest.raises(UserError, match="has changed since it answered"):
        measure(subject, asked, **more)
    hook.remove()
    whole = answer(subject, asked.prompts, 1)
    weight.data += 0.01
    assert measure(subject, asked, **more | {"baseline": whole}).gate.n == 306


def test_a_server_is_asked_again_for_answers_that_lack():
    asked = []
    prompts = make_prompts(2)
    before = answer(planted_subject("base", cautious, asked), prompts, 4)
    del asked[:]
    more = {"max_new_tokens": 4, "judges": {"say_no": say_no}}
    found = measure(planted_subject("tuned", right), questions(prompts, margin=0.05), baseline=before, **more)
    assert found.passed
    assert len(asked) == found.gate.n - 2 == 304


def test_answers_that_were_asked_for_in_another_way_are_no_baseline():
    before = answer(BASE, make_prompts(2), 4)
    for changes, message in (
        ({"max_new_tokens": 9}, "`baseline=answers`: answers with max_new_tokens 4; expected 9; answer again"),
        ({"model": subject_of(make_model())}, "answers with engine planted; expected transformers"),
    ):
        more = {"model": BASE, "max_new_tokens": 4} | changes
        with pytest.raises(UserError, match=message):
            measure(more.pop("model"), questions(make_prompts(2)), baseline=before, **more)


def test_the_perplexity_of_a_baselines_answers_is_that_on_the_same_text():
    chat_model = make_model()
    text, other = "some plain text " * 20, "other words " * 20
    before = answer(subject_of(chat_model), make_prompts(2), 1, text=text)
    more = {"baseline": before, "max_new_tokens": 1, "judges": {"all": say_yes}}

    def damage(text):
        return measure(subject_of(chat_model), questions(make_prompts(2)), text=text, **more).results.damage

    for words in (text, other):
        assert damage(words)["perplexity_baseline"] == damage(words)["perplexity"]
    assert "perplexity_baseline" not in damage(None)
    chat_model.model.get_output_embeddings().weight.data[5] += 0.3
    assert damage(text)["perplexity_baseline"] == before.perplexity != damage(text)["perplexity"]
    with pytest.raises(UserError, match="the perplexity of this text would have to be asked for"):
        damage(other)


def test_conversations_and_system_prompts_are_measured_like_single_prompts(tmp_path):
    talk = Prompt("And now?", "harmless", "talk", (Message("system", "Be brief."), Message("user", "Hi")))
    seen = []

    def engine(prompts, max_new_tokens):
        for row, prompt in enumerate(prompts):
            seen.append(prompt.messages())
            yield Answer(row, "Yes", True)

    run(subject_with("tuned", engine), [talk, *make_prompts(2)], tmp_path / "m")
    assert seen[0] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "user", "content": "And now?"},
    ]
    assert rows_of(tmp_path / "m" / "responses.jsonl")[0]["messages"] == seen[0]


def test_a_finished_measurement_is_not_overwritten(tmp_path):
    run(right, make_prompts(2), tmp_path / "m")
    with pytest.raises(UserError, match=re.escape("a folder with results")):
        run(right, make_prompts(2), tmp_path / "m")


def test_the_gates_time_is_foreseen_and_a_lack_of_memory_for_that_stops_nothing(chat_model, caplog, monkeypatch):
    asked, opened = questions(make_prompts(), (), margin=0.05), Opened(local_engine(chat_model), chat_model)
    with caplog.at_level("INFO"):
        tell_time(asked, opened, "m", 2, 10)
    assert re.search(r"m: about \d+ s for 340 answers, \d+ s of it for those of the gate", caplog.text)
    caplog.clear()

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("actor_tune.measurement.forecast.block_rates", full)
    tell_time(asked, opened, "m", 2, 10)
    tell_time(asked, Opened(local_engine(chat_model)), "m", 2, 10)  # a server's time cannot be foreseen
    tell_time(questions(make_prompts()), opened, "m", 2, 10)  # nothing was added
    assert caplog.text == ""


def test_twice_the_answers_take_twice_the_time(chat_model, monkeypatch):
    monkeypatch.setattr("actor_tune.measurement.forecast.block_rates", lambda *_: Rates(1e6, 1e5))
    once, twice = (answering_seconds(chat_model, make_prompts() * times, 4) for times in (1, 2))
    assert twice == pytest.approx(2 * once)
    blocks = sum(parameter.numel() for parameter in chat_model.blocks.parameters())
    tokens = sum(map(len, chat_model.encode(make_prompts())))
    steps = 4 * len(make_prompts())
    head = chat_model.model.get_output_embeddings().weight.numel()
    assert once == pytest.approx(2 * (blocks * tokens + head * steps) / 1e6 + 2 * blocks * steps / 1e5)
