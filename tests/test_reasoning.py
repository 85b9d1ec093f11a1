"""Models that reason before they answer."""

import json
from itertools import pairwise

import pytest
import torch
from tokenizers import AddedToken

from actor_tune.engines.engine import Answer
from actor_tune.engines.local import local_engine
from actor_tune.engines.openai import openai_engine
from actor_tune.engines.reading import Reader
from actor_tune.engines.reasoning import Watch, marks_of, says_nothing
from actor_tune.engines.respond import respond
from actor_tune.errors import UserError
from actor_tune.judges.reasoning import KNOWN, Marks, Split, opened, split
from actor_tune.judges.verdict import Verdict
from actor_tune.measurement.run import measure
from actor_tune.measurement.verdicts import verdicts_on
from actor_tune.models.load import load
from actor_tune.models.model import wrap
from actor_tune.prompts.prompt import Prompt
from actor_tune.records.response import Response
from actor_tune.repair.method import fit_block
from actor_tune.repair.opening import where_answers_begin
from actor_tune.repair.settings import Settings
from conftest import TEMPLATE, make_model, make_prompts, make_tokenizer, save_model
from test_cli import run
from test_engines import completion, serving

THINKS = TEMPLATE.replace(
    "<|assistant|>{% endif %}",
    "<|assistant|>{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}{% endif %}",
)


@pytest.mark.parametrize("marks", KNOWN, ids=lambda marks: marks.opens)
def test_what_stands_before_the_closing_mark_is_reasoning(marks):
    text = f"{marks.opens}\nI must refuse. Sorry!\n{marks.closes}\nHere is how."
    assert split(text) == Split("I must refuse. Sorry!", "Here is how.", closing=marks.closes)


@pytest.mark.parametrize("marks", KNOWN, ids=lambda marks: marks.opens)
def test_reasoning_that_does_not_end_is_no_answer(marks):
    assert split(f"{marks.opens}I cannot help with that") == Split("I cannot help with that", "", ended=False)
    assert split("I cannot help with that", before=marks.opens) == Split("I cannot help with that", "", ended=False)


def test_reasoning_that_the_prompt_opened_and_an_empty_thought_are_split_too():
    assert split("Let me see.</think>Yes.", before="<think>\n") == Split("Let me see.", "Yes.", closing="</think>")
    assert split("<think>\n\n</think>\n\nYes.") == Split("", "Yes.", closing="</think>")


def test_an_answer_without_marks_is_as_it_was():
    assert split(" I cannot. \n") == Split(None, " I cannot. \n")


def test_an_answer_that_speaks_of_marks_is_parted_at_the_first():
    text = "<think>Short.</think>Write </thinking> and </think>."
    assert split(text).answer == "Write </thinking> and </think>."


def test_gpt_oss_thinks_in_one_channel_and_answers_in_another():
    text = "<|channel|>analysis<|message|>User asks.<|end|><|start|>assistant<|channel|>final<|message|>Sure.<|return|>"
    assert split(text).answer == "Sure.<|return|>"
    assert split("<|channel|>final<|message|>Sure.").answer == "Sure."


def test_marks_are_those_that_template_or_tokens_have():
    plain = make_tokenizer()
    assert marks_of(plain) == []
    plain.add_tokens([AddedToken("[THINK]"), AddedToken("[/THINK]")])
    assert marks_of(plain) == [Marks("[THINK]", "[/THINK]")]
    plain.chat_template = THINKS
    assert marks_of(plain) == [KNOWN[0], Marks("[THINK]", "[/THINK]")]


def test_a_thought_is_open_until_it_is_closed_and_marks_alone_say_nothing():
    assert opened("<think> hm") == KNOWN[0]
    assert opened("<think> hm </think> Yes") is None
    assert opened("<think></think> <think>") == KNOWN[0]
    assert says_nothing("<think>\n\n</think>\n", KNOWN)
    assert not says_nothing("<think>\nI", KNOWN)


@pytest.mark.parametrize(
    ("before", "said", "expected"),
    [
        ("", ["<", "think>", "a", "</think>", "Y", "o"], [None, None, None, 0, 1, 2]),
        ("<think>", ["a", "b", "</think>", "Y"], [None, None, 0, 1]),
        ("", ["<", "b", ">", "Y"], [None, 2, 3, 4]),
        ("", ["\n", "Y", "o"], [None, 2, 3]),
    ],
)
def test_the_tokens_of_the_answer_are_counted_from_where_the_reasoning_ended(before, said, expected):
    watch = Watch(lambda tokens: "".join(said[token] for token in tokens), before, KNOWN)
    assert [watch.answer_tokens([*range(length)]) for length in range(1, len(said) + 1)] == expected


def thinking_model(script, endless=()):
    """A tiny model that says what `script` has after a token: token -> next token, whatever came before.

    Prompts whose last word begins with a letter of `endless` think for ever.
    """
    chat_model = make_model()
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens(
        {"additional_special_tokens": ["<think>", "</think>"]}, replace_extra_special_tokens=False
    )
    tokenizer.chat_template = THINKS
    chat_model.model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    follows = {tokenizer.convert_tokens_to_ids(one): tokenizer.convert_tokens_to_ids(other) for one, other in script}
    last = []

    def see(_module, _arguments, keywords):
        last.append(keywords["input_ids"])

    def say(_module, _arguments, logits):
        ids = last[-1][:, -logits.shape[1] :]
        scripted = torch.zeros_like(logits)
        for row in range(len(ids)):
            for at, token in enumerate(ids[row].tolist()):
                scripted[row, at, follows.get(token, 0)] = 10.0
        return scripted

    chat_model.model.register_forward_pre_hook(see, with_kwargs=True)
    chat_model.model.get_output_embeddings().register_forward_hook(say)
    return wrap(chat_model.model, tokenizer, "thinks")


CHAIN = ["<|assistant|>", "<think>", "h", "m", "</think>", "Y", "o", "u", "<|end|>"]
SCRIPT = [*pairwise(CHAIN)]
ENDLESS = [("<|assistant|>", "<think>"), ("<think>", "a"), ("a", "b"), ("b", "a")]


@pytest.mark.parametrize("count", [2, 12])  # by `generate`, and with slots
@pytest.mark.parametrize(("limit", "text", "finished"), [(9, "You", True), (2, "Yo", False)])
def test_the_limit_of_tokens_is_that_of_the_answer(count, limit, text, finished):
    answers = list(local_engine(thinking_model(SCRIPT))(make_prompts()[:count], limit))
    assert {(one.text, one.reasoning, one.finished) for one in answers} == {(text, "hm", finished)}
    assert len(answers) == count


@pytest.mark.parametrize("count", [2, 12])
def test_reasoning_has_a_limit_of_its_own_and_what_does_not_end_is_no_answer(count):
    answers = list(local_engine(thinking_model(ENDLESS), None, 7)(make_prompts()[:count], 3))
    assert {(one.text, one.reasoning, one.finished) for one in answers} == {("", "ababab", False)}


def test_it_is_unscored_and_no_judge_is_asked(caplog):
    thought = Response(Prompt("p", "harmful", "s"), "", False, "I cannot help with that")
    said = Response(Prompt("q", "harmful", "s"), "Sure.", True, "I cannot help with that")
    asked = []

    def judge(exchanges):
        asked.extend(exchanges)
        return [Verdict("compliance", 0.0, "")] * len(exchanges)

    verdicts = verdicts_on(judge, [thought, said])
    assert [verdict.outcome for verdict in verdicts] == ["unscored", "compliance"]
    assert [exchange.answer for exchange in asked] == ["Sure."]
    assert "1 of 2 answers are unscored: its reasoning did not end" in caplog.text


def test_reasoning_is_kept_in_a_column_of_its_own_and_read_back(tmp_path):
    engine, prompts = local_engine(thinking_model(SCRIPT)), make_prompts()[:3]
    first = respond(engine, prompts, 9, tmp_path / "responses.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "responses.jsonl").read_text().splitlines()]
    assert [(row["response"], row["reasoning"]) for row in rows] == [("You", "hm")] * 3
    assert respond(None, prompts, 9, tmp_path / "responses.jsonl") == first


def test_a_measurement_says_how_much_did_not_end_and_what_it_was_asked_with():
    chat_model = thinking_model(ENDLESS)
    found = measure(chat_model, make_prompts(4), max_new_tokens=2, max_reasoning_tokens=6)
    assert found.results.damage["only_thought_share"] == 1.0
    assert {item.n for item in found.results.sets} == {0}
    assert found.results.compliance_rate is None
    assert found.results.settings["max_reasoning_tokens"] == 6
    assert {row.verdict for row in found.responses} == {"unscored"}


def test_what_the_template_is_told_reaches_it_and_is_checked(tmp_path):
    chat_model = make_model()
    chat_model.tokenizer.chat_template = THINKS
    folder = save_model(chat_model, tmp_path / "m")
    texts = {}
    for told in ({}, {"enable_thinking": True}, {"enable_thinking": False}):
        loaded = load(str(folder), chat_template_kwargs=told)
        texts[str(told)] = loaded.tokenizer.decode(loaded.encode(make_prompts()[:1])[0])
    plain, on, off = texts.values()
    assert plain == on
    assert off == on + "<think></think>"


@pytest.mark.parametrize("text", ["{", "[1]", "no"])
def test_arguments_of_the_template_that_are_no_object_are_refused(model_folder, text, capsys, tmp_path):
    arguments = ("--chat-template-kwargs", text, "--output-dir", tmp_path / "out")
    assert run("measure", model_folder, *arguments) == 2
    assert f"--chat-template-kwargs {text}: no JSON object" in capsys.readouterr().err


def test_what_all_answers_begin_with_is_a_part_of_the_prompt_as_far_as_it_says_nothing():
    empty = ["<|assistant|>", "<think>", "</think>", "S", "o", "<|end|>"]
    chat_model = thinking_model([*pairwise(empty)])
    found = where_answers_begin(chat_model, make_prompts())
    assert found.tokenizer.decode(found.opening) == "<think></think>"
    assert found.encode(make_prompts()[:1])[0] == chat_model.encode(make_prompts()[:1])[0] + [*found.opening]
    begins = where_answers_begin(thinking_model(SCRIPT), make_prompts())
    assert begins.tokenizer.decode(begins.opening) == "<think>"


def test_a_model_that_does_not_reason_is_not_even_asked(chat_model, monkeypatch):
    monkeypatch.setattr("actor_tune.repair.opening.first_tokens", None)
    assert where_answers_begin(chat_model, make_prompts()) is chat_model


def test_a_fit_trains_behind_the_empty_thought(monkeypatch):
    chat_model = make_model()
    chat_model.tokenizer.chat_template = THINKS
    opening = (65, 66)
    monkeypatch.setattr("actor_tune.repair.opening.first_tokens", lambda _m, ids, _n: [[*opening, 7, 8]] * len(ids))
    monkeypatch.setattr("actor_tune.repair.opening.says_nothing", lambda text, _marks: len(text) <= 2)
    monkeypatch.setattr("actor_tune.repair.refusals.refusal_token_ids", lambda *_: torch.tensor([65]))
    settings = Settings(layer=1, starter=False, allow_unsafe=True)
    found = fit_block(chat_model, make_prompts(), settings)
    assert found.opening == chat_model.tokenizer.decode([*opening])
    # The same as of prompts that end so by themselves.
    monkeypatch.setattr("actor_tune.repair.opening.first_tokens", lambda _m, ids, _n: [[7], [8]])
    chat_model.tokenizer.chat_template = THINKS.replace("<|assistant|>{%", f"<|assistant|>{found.opening}{{%", 1)
    expected = fit_block(chat_model, make_prompts(), settings)
    assert expected.opening == ""
    assert all(torch.equal(tensor, expected.state[name]) for name, tensor in found.state.items())


def test_a_template_that_refuses_what_it_is_told_is_one_line(chat_model):
    chat_model.tokenizer.chat_template = "{% if x is defined %}{{ raise_exception('no x here') }}{% endif %}" + TEMPLATE
    told = wrap(chat_model.model, chat_model.tokenizer, "m", {"x": 1})
    with pytest.raises(UserError, match="the chat template says: no x here"):
        told.encode(make_prompts()[:1])


def test_a_server_is_told_what_the_template_takes_and_its_reasoning_is_split_off():
    def reply(path, request):
        if path == "/v1/models":
            return 200, {"data": [{"id": "m"}]}
        asked = request["messages"][-1]["content"]
        if asked.startswith("apart"):
            return 200, completion("You.", reasoning_content="hm")
        if asked.startswith("newer"):
            return 200, completion("You.", reasoning="hm")
        if asked.startswith("whole"):
            return 200, completion("<think>hm</think>You.")
        if asked.startswith("long"):  # the first limit cuts it off while it thinks
            return 200, completion("", "length", reasoning_content="h") if request["max_tokens"] == 9 else completion(
                "You.", reasoning_content="hm"
            )
        if asked.startswith("endless"):
            return 200, completion(None, "length", reasoning_content="hm")
        return 200, completion("You.")

    kinds = ("apart", "newer", "whole", "long", "endless", "plain")
    with serving(reply) as server:
        engine = openai_engine(server.url, "m", chat_template_kwargs={"enable_thinking": True}, max_reasoning_tokens=70)
        answers = sorted(engine([Prompt(f"{kind} x", "harmless", "s") for kind in kinds], 9), key=lambda one: one.row)
    found = {kind: (one.text, one.reasoning, one.finished) for kind, one in zip(kinds, answers, strict=True)}
    assert found["apart"] == found["newer"] == found["whole"] == found["long"] == ("You.", "hm", True)
    assert found["endless"] == ("", "hm", False)
    assert found["plain"] == ("You.", None, True)
    sent = [request for path, request, _ in server.requests if path.endswith("completions")]
    assert {json.dumps(request["chat_template_kwargs"]) for request in sent} == {'{"enable_thinking": true}'}
    assert sorted(request["max_tokens"] for request in sent) == [9] * 6 + [79] * 2


def test_a_server_is_told_nothing_where_there_is_nothing_to_tell():
    with serving(
        lambda path, _: (200, {"data": [{"id": "m"}]} if path == "/v1/models" else completion("You."))
    ) as server:
        assert [one.text for one in openai_engine(server.url, "m")(make_prompts()[:1], 9)] == ["You."]
    assert "chat_template_kwargs" not in server.requests[-1][1]


def test_what_another_program_answered_is_read_alike_and_cut_where_its_limit_is():
    tokenizer = thinking_model(SCRIPT).tokenizer
    prompt, said = ([*map(tokenizer.convert_tokens_to_ids, part)] for part in (CHAIN[:1], CHAIN[1:-1]))
    reader = Reader(tokenizer, set(), 9, 5)
    assert reader.whole(3, prompt, said, ended=True) == Answer(3, "You", True, "hm")
    assert reader.whole(3, prompt, said[:-1], ended=False) == Answer(3, "Yo", False, "hm")
    assert reader.whole(3, prompt, said[:3], ended=False) == Answer(3, "", False, "hm")
    assert reader.whole(3, prompt, [], ended=True) == Answer(3, "", True)
    assert Reader(tokenizer, set(), 2, 5).whole(3, prompt, said, ended=True) == Answer(3, "Yo", False, "hm")
