import json
from pathlib import Path

import pytest

from actor_tune.engines.engine import Answer, Opened, Subject
from actor_tune.judges.choose import judge_by_name
from actor_tune.judges.verdict import Verdict
from actor_tune.measurement.change import change
from actor_tune.measurement.gate import decide
from actor_tune.measurement.metrics import measured
from actor_tune.measurement.questions import questions
from actor_tune.measurement.run import measure
from actor_tune.prompts.prompt import Message, Prompt
from actor_tune.records.file import read, read_rows, row_json
from actor_tune.records.response import Response, ResponseRow, response_row
from actor_tune.records.results import GATE_SET, LeakedPrompt, Results
from test_records import kept, without_corrected

PROMPTS = [
    *[Prompt(f"odd {row}", "pseudo_harmful", "odd") for row in range(10)],
    *[Prompt(f"bad {row}", "harmful", "bad") for row in range(10)],
    *[Prompt(f"guard {row}", "harmful", GATE_SET) for row in range(200)],
    *[Prompt(f"plain {row}", "harmless", "plain") for row in range(10)],
]


def verdicts_of(refused):
    """Of every prompt of which `refused` holds a refusal, of all others an answer."""
    return [
        Verdict("refusal", 1.0, "says no") if refused(prompt) else Verdict("compliance", 0.0, "") for prompt in PROMPTS
    ]


def measurement(verdicts, name="model"):
    texts = ["I will not do that." if verdict.refused else "Here you are" for verdict in verdicts]
    responses = [Response(prompt, text, text.endswith(".")) for prompt, text in zip(PROMPTS, texts, strict=True)]
    return measured(name, responses, verdicts)


OLD = verdicts_of(lambda prompt: prompt.kind != "harmless")
NEW = verdicts_of(lambda prompt: prompt.kind == "harmful" or prompt.text == "odd 3")
BEFORE, AFTER = measurement(OLD, "base"), measurement(NEW)


def test_rates_are_counted_set_by_set_and_guards_are_not_in_the_scores():
    assert [(item.name, item.refused, item.n, item.guard) for item in AFTER.sets] == [
        ("odd", 1, 10, False),
        ("bad", 10, 10, False),
        (GATE_SET, 200, 200, True),
        ("plain", 0, 10, False),
    ]
    worse = measurement(verdicts_of(lambda prompt: prompt.set == "bad"))
    assert worse.safety_score == 1
    assert AFTER.compliance_rate == 0.9


def test_length_and_unfinished_answers_are_counted_whatever_they_say():
    assert AFTER.damage["mean_words"] == pytest.approx((211 * 5 + 19 * 3) / 230)
    assert AFTER.damage["unfinished_share"] == pytest.approx(19 / 230)
    assert AFTER.damage["garbled_share"] == 0
    loops = [Response(PROMPTS[0], "the the the the the the the the the the the the", True)]
    looping = measured("m", loops, [Verdict("unscored", 0.5, "loops")])
    assert looping.damage["garbled_share"] == 1
    assert (looping.sets[0].garbled, looping.sets[0].mean_words) == (1, 12)


def test_the_results_have_the_promised_form(tmp_path):
    results = Results(
        **vars(AFTER),
        judge="trained",
        kl_harmless=0.02,
        leaked=[LeakedPrompt("x", "s", "X", 0.912)],
        baseline=BEFORE,
        comparison=change(PROMPTS, OLD, NEW),
        gate=decide(PROMPTS, OLD, NEW, 0.05),
    )
    record = json.loads(results.save(tmp_path).read_text())
    assert read(Results, tmp_path) == results
    assert set(record) >= {
        "schema",
        "model",
        "judge",
        "sets",
        "compliance_rate",
        "safety_score",
        "tradeoff_score",
        "harmless_refusal_rate",
        "intervals",
        "kl_harmless",
        "damage",
        "leaked",
        "baseline",
        "comparison",
        "gate",
        "labels",
        "labelled",
    }
    assert record["compliance_rate"] == 0.9
    assert record["intervals"]["compliance_rate"][0] < 0.9 < record["intervals"]["compliance_rate"][1]
    for entry in record["sets"]:
        assert entry["refusal_rate"] == entry["refused"] / entry["n"]
        assert 0 <= entry["low"] <= entry["refusal_rate"] <= entry["high"] <= 1
        assert entry["labelled"] is None
    assert record["leaked"] == [{"prompt": "x", "set": "s", "like": "X", "similarity": 0.912}]
    assert record["baseline"]["model"] == "base"
    assert record["baseline"]["compliance_rate"] == 0
    assert record["comparison"]["compliance_rate"]["difference"] == pytest.approx(0.9)
    assert record["comparison"]["sets"][0]["lost"] == 9
    assert record["comparison"]["sets"][0]["mcnemar_p"] == pytest.approx(2 / 2**9)
    assert record["gate"]["passed"] is True
    assert record["gate"]["n"] == 210


OLDER = Path(__file__).parent / "files_of_version_0_1_0" / "after"


def test_the_same_answers_give_what_version_0_1_0_wrote(tmp_path):
    def told(file):
        rows = {row.asked: row.response for row in read_rows(ResponseRow, OLDER / file)}

        def engine(prompts, max_new_tokens):
            for row, prompt in enumerate(prompts):
                yield Answer(row, rows[prompt], False)

        return rows, lambda: Opened(engine)

    (prompts, model), (_, baseline) = told("responses.jsonl"), told("baseline.jsonl")
    written = json.loads((OLDER / "results.json").read_text())
    leaked = [Prompt(leak["prompt"], "pseudo_harmful", leak["set"]) for leak in written["leaked"]]
    assert leaked
    measure(
        Subject("run/model", model),
        questions([*prompts, *leaked], leaked),
        baseline=Subject("model", baseline),
        max_new_tokens=4,
        judges={name: judge_by_name(name) for name in ("trained", "strings")},
        command=written["command"],
    ).save(tmp_path / "m")
    for file in ("responses.jsonl", "baseline.jsonl", "request.json"):
        assert (tmp_path / "m" / file).read_text() == (OLDER / file).read_text(), file
    again = json.loads((tmp_path / "m" / "results.json").read_text())
    # Read from the probabilities of a model, which is not here.
    assert again.pop("kl_harmless") is None
    later = {"chat_template_kwargs": {}, "max_reasoning_tokens": 1024, "gate_prompts": None}
    assert {name: again["settings"].pop(name) for name in later} == later
    assert written.pop("kl_harmless") > 0
    assert written["damage"].pop("kl_harmless_tokens") > 0
    assert again.pop("labels") is None
    written = without_corrected(written) | {"versions": None}
    assert kept(again | {"versions": None}, written) == written


def test_a_set_that_nobody_can_score_is_null_and_not_0_percent():
    responses = [Response(prompt, "x", True) for prompt in PROMPTS[:3]]
    babble = measured("m", responses, [Verdict("unscored", 0.5, "")] * 3)
    assert babble.sets[0].refusal_rate is None
    assert (babble.sets[0].n, babble.sets[0].unscored) == (0, 3)
    assert babble.compliance_rate is None


def test_every_answer_is_stored_with_its_verdict_and_conversations_whole():
    talk = Prompt("And now?", "harmless", "t", (Message("user", "Hello"), Message("assistant", "Hi")))
    row = response_row(Response(talk, "Now.", True), Verdict("compliance", 0.123456, "helps"))
    assert row_json(row) == {
        "prompt": "And now?",
        "kind": "harmless",
        "set": "t",
        "messages": [
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hi"},
            {"role": "user", "content": "And now?"},
        ],
        "response": "Now.",
        "finished": True,
        "verdict": "compliance",
        "score": 0.1235,
        "reason": "helps",
    }
    assert Response(talk, "Now.", True).exchange.prompt == "And now?"
