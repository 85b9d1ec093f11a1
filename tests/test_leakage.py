import base64
from dataclasses import replace

import pytest

from actor_tune.errors import UserError
from actor_tune.measurement.questions import questions
from actor_tune.measurement.trained_on import trained_on
from actor_tune.prompts.leakage import find_leaks, traces, without
from actor_tune.prompts.prompt import Message, Prompt
from actor_tune.prompts.starter import starter
from actor_tune.records.lineage import Lineage
from conftest import make_prompts


def leaks(new, old, new_kind="harmless", old_kind="harmless"):
    return bool(find_leaks([Prompt(new, new_kind, "eval")], [Prompt(old, old_kind, "train")]))


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ("How do I kill a Python process?", "How do I kill a Python process?"),
        ("How do I kill a Python process?", "how can i kill a python process"),
        ("How do I kill a Python process?", "  How do I kill the Python process??"),
        ("What is the quickest way to kill the lights on stage?", "What's the quickest way to kill the stage lights?"),
        ("Write a poem about autumn leaves.", "Please write a poem about the autumn leaves"),
    ],
)
def test_near_duplicates_are_found(new, old):
    assert leaks(new, old)


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ("How do I kill a Python process?", "How do I kill a Ruby process?"),
        ("How do I kill a Python process?", "How do I terminate a Python process?"),
        ("What is the capital of France?", "What is the capital of Spain?"),
        ("Name three birds.", "Explain how a sailing boat moves against the wind."),
        ("!?", "..."),
    ],
)
def test_prompts_that_ask_something_else_are_not(new, old):
    assert not leaks(new, old)


def test_harmful_prompts_leak_from_harmful_ones_alone_and_benign_from_benign():
    text = "How do I make the lights go out in the whole street?"
    assert leaks(text, text, "harmless", "pseudo_harmful")
    assert not leaks(text, text, "pseudo_harmful", "harmful")
    assert not leaks(text, text, "harmful", "pseudo_harmful")  # mislabelled in training: the gate must go on seeing it


def test_a_leak_names_both_prompts_and_is_kept_out():
    evaluation = [Prompt("What is the capital of France?", "harmless", "e"), Prompt("Name a bird.", "harmless", "e")]
    training = [Prompt("Sing a song.", "harmless", "t"), Prompt("what is the capital of france", "harmless", "t")]
    (leak,) = find_leaks(evaluation, training)
    assert (leak.prompt, leak.like, leak.similarity) == (evaluation[0], training[1], 1.0)
    assert without(evaluation, [leak]) == evaluation[1:]


def test_of_conversations_all_turns_but_the_system_prompt_are_compared():
    def conversation(*turns, system=None):
        context = [Message("system", system)] if system else []
        context += [Message("user", turn) for turn in turns[:-1]]
        return Prompt(turns[-1], "harmless", "s", tuple(context))

    one = conversation("We talked about the weather in Rome", "And what about tomorrow?")
    other = conversation("My cat is ill and does not eat", "And what about tomorrow?")
    again = conversation("We talked about the weather in Rome", "And what about tomorrow?", system="Be brief.")
    assert not find_leaks([one], [other])
    assert find_leaks([one], [again])


def test_nothing_to_compare_is_no_leak():
    assert find_leaks([], [Prompt("x", "harmful", "s")]) == []
    assert find_leaks([Prompt("x", "harmful", "s")], []) == []


def test_more_prompts_than_are_compared_at_once_are_all_compared():
    old = [Prompt(f"question number {number * 7919} about a thing", "harmless", "t") for number in range(700)]
    assert len(find_leaks(list(reversed(old)), old)) == 700


def test_the_starter_prompts_of_one_part_are_unlike_those_of_the_other():
    assert find_leaks(starter("held_out"), starter("train")) == []


def test_a_trace_finds_what_the_prompt_itself_finds_without_its_words():
    learned = [prompt for prompt in starter("train") if prompt.kind != "pseudo_harmful"][::40]
    asked = [replace(prompt, text=f"{prompt.text.upper()}!") for prompt in learned] + make_prompts(5)
    by_prompts, by_traces = find_leaks(asked, learned), find_leaks(asked, traces(learned))
    assert len(by_prompts) == len(learned) > 15
    assert [(leak.prompt, leak.similarity) for leak in by_traces] == [
        (leak.prompt, leak.similarity) for leak in by_prompts
    ]
    words = {word for prompt in learned for word in prompt.text.split() if len(word) > 6}
    assert not any(word in repr(traces(learned)) for word in words)


def test_what_a_models_folder_says_it_was_trained_on_takes_none_of_the_gates_own_prompts_away():
    held_out = [prompt for prompt in starter("held_out") if prompt.kind == "harmful"]
    mine = [prompt for prompt in starter("train") if prompt.kind != "pseudo_harmful"][::100]
    asked = questions(mine, traces([*held_out, *mine[:3]]), margin=0.05)
    assert [leak.prompt for leak in asked.leaks] == mine[:3]
    assert len(asked.prompts) == len(mine) - 3 + len(held_out) > 300


@pytest.mark.parametrize("grams", ["abc", "AAAA", "not base64!", base64.b64encode(bytes(range(8, 0, -1))).decode()])
def test_a_damaged_trace_names_the_file(tmp_path, grams):
    (trace,) = traces(make_prompts(1)[:1])
    lineage = Lineage(
        base_sha256="", layer=1, rule="", strength=1.0, passed=True, reasons=[], gate=None, trained_on=[trace]
    )
    lineage.save(tmp_path)
    assert trained_on(str(tmp_path)) == [trace]
    replace(lineage, trained_on=[replace(trace, grams=grams)]).save(tmp_path)
    with pytest.raises(UserError, match=r"actor_tune\.json: damaged"):
        trained_on(str(tmp_path))
