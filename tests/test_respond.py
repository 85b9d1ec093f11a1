import functools
import json
import re
import subprocess
import sys
import textwrap
import time

import pytest

from actor_tune.engines.engine import Answer
from actor_tune.engines.respond import respond
from actor_tune.errors import UserError
from actor_tune.prompts.prompt import Message, Prompt, with_system_prompt
from conftest import make_prompts


def echo(asked=None, stop_after=None):
    """An engine that answers backwards with the prompt's text in capitals, noting in `asked` what it was asked."""

    def answer(prompts, max_new_tokens):
        assert max_new_tokens == 3
        for count, row in enumerate(reversed(range(len(prompts)))):
            if count == stop_after:
                raise KeyboardInterrupt
            if asked is not None:
                asked.append(prompts[row])
            yield Answer(row, prompts[row].text.upper(), finished=row % 2 == 0)

    return answer


@pytest.fixture
def store(tmp_path):
    return tmp_path / "responses.jsonl"


def stored(store):
    return [json.loads(line) for line in store.read_text(encoding="utf-8").splitlines()]


ONE_BY_ONE = functools.partial(respond, portion=None)
"""As of an engine whose answers do not depend on each other."""


def test_answers_come_in_the_order_of_the_prompts_whatever_the_engine_does(prompts, store):
    responses = ONE_BY_ONE(echo(), prompts, 3, store)
    assert [(response.prompt, response.text) for response in responses] == [(p, p.text.upper()) for p in prompts]
    assert [response.finished for response in responses[:3]] == [True, False, True]
    assert sorted(row["response"] for row in stored(store)) == sorted(prompt.text.upper() for prompt in prompts)
    assert set(stored(store)[0]) == {"prompt", "kind", "set", "response", "finished"}


def test_an_interrupted_run_keeps_its_answers_and_asks_only_for_the_others(prompts, store, caplog):
    first, second = [], []
    with pytest.raises(KeyboardInterrupt):
        ONE_BY_ONE(echo(first, stop_after=10), prompts, 3, store)
    assert len(stored(store)) == 10
    with caplog.at_level("INFO", "actor_tune"):
        responses = ONE_BY_ONE(echo(second), prompts, 3, store)
    assert "going on: 10 of 36 answers are there" in caplog.text
    assert not set(first) & set(second)
    assert [response.text for response in responses] == [prompt.text.upper() for prompt in prompts]
    assert len(stored(store)) == len(prompts)


def company(asked, stop_after=None):
    """An engine whose answers name what is answered with them, as rounding in batches may do."""

    def answer(prompts, max_new_tokens):
        asked.append([prompt.text for prompt in prompts])
        beside = " ".join(sorted(prompt.text for prompt in prompts))
        for row in range(len(prompts)):
            if sum(map(len, asked[:-1])) + row == stop_after:
                raise KeyboardInterrupt
            yield Answer(row, beside, finished=True)

    return answer


@pytest.mark.parametrize("stop_after", [0, 3, 5, 10, 35])
def test_a_run_that_goes_on_gives_the_answers_of_one_that_was_not_cut_off(prompts, store, stop_after):
    whole, asked = [], []
    expected = respond(company(whole), prompts, 3, portion=5)
    assert [len(portion) for portion in whole] == [5] * 7 + [1]
    assert [max(map(len, portion)) for portion in whole] == sorted((max(map(len, p)) for p in whole), reverse=True)
    with pytest.raises(KeyboardInterrupt):
        respond(company([], stop_after), prompts, 3, store, portion=5)
    kept = stored(store)
    assert len(kept) == stop_after
    assert respond(company(asked), prompts, 3, store, portion=5) == expected
    assert asked == whole[stop_after // 5 :], "whole portions, and none that was done"
    assert stored(store)[:stop_after] == kept
    assert len(stored(store)) == len(prompts)


def test_an_engine_that_answers_a_prompt_twice_is_heard_once(prompts, store):
    twice = [*echo()(prompts, 3)] * 2
    respond(lambda *_: iter(twice), prompts, 3, store)
    assert len(stored(store)) == len(prompts)


def test_a_run_with_all_its_answers_asks_nothing(prompts, store):
    responses = respond(echo(), prompts, 3, store)
    assert respond(None, prompts, 3, store) == responses


def test_equal_prompts_are_asked_once_and_each_has_its_response(store):
    a, b = make_prompts(1)[:2]
    asked = []
    responses = respond(echo(asked), [a, b, a, a], 3, store)
    assert sorted(asked, key=str) == sorted([a, b], key=str)
    assert [response.prompt for response in responses] == [a, b, a, a]


def test_prompts_that_differ_in_kind_set_or_context_alone_are_kept_apart(store):
    plain = Prompt("x", "harmful", "s")
    prompts = [
        plain,
        Prompt("x", "harmless", "s"),
        Prompt("x", "harmful", "t"),
        *with_system_prompt([plain], "Be kind."),
    ]
    asked = []
    with pytest.raises(KeyboardInterrupt):
        ONE_BY_ONE(echo(asked, stop_after=1), prompts, 3, store)  # the one with a system prompt
    assert stored(store)[0]["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "x"},
    ]
    assert [response.prompt for response in ONE_BY_ONE(echo(asked), prompts, 3, store)] == prompts
    assert sorted(asked, key=str) == sorted(prompts, key=str)


@pytest.mark.parametrize("cut", [1, 2, 30])
def test_a_torn_last_line_is_dropped_and_its_prompt_asked_again(store, cut):
    prompts = [Prompt("größer\u2028als\x85\r\n", "harmless", "s"), Prompt("Größe?", "harmless", "s")]
    expected = respond(echo(), prompts, 3, store)
    whole = store.read_bytes()
    store.write_bytes(whole[:-cut])
    assert respond(echo(), prompts, 3, store) == expected
    assert store.read_bytes() == whole


def test_answers_with_verdicts_are_read_too(prompts, store):
    responses = respond(echo(), prompts, 3, store)
    judged = [{**row, "verdict": "refusal", "reason": "I"} for row in stored(store)]
    store.write_text("".join(json.dumps(row) + "\n" for row in judged))
    assert respond(None, prompts, 3, store) == responses


def test_answers_to_other_prompts_are_refused_and_left_alone(prompts, store):
    respond(echo(), prompts, 3, store)
    store.write_bytes(store.read_bytes() + b"torn")
    before = store.read_bytes()
    message = re.escape(f"{store}: an answer to 'steal the thing 0 now' (harmful, set_harmful), which is not among")
    with pytest.raises(UserError, match=message):
        respond(echo(), prompts[1:], 3, store)
    assert store.read_bytes() == before


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b"{}",
        b'{"prompt": "x", "kind": "harmful", "set": "s", "messages": 3}',
        b"\xff",
        b'{"prompt": [], "kind": "harmful", "set": "s", "response": "", "finished": true}',
    ],
)
def test_a_line_that_is_no_answer_is_named(prompts, store, line):
    respond(echo(), prompts[:1], 3, store)
    store.write_bytes(store.read_bytes() + line + b"\n")
    with pytest.raises(UserError, match=r"responses.jsonl, line 2: no answer of a run; .*; remove the line"):
        respond(echo(), prompts, 3, store)


def test_an_engine_that_leaves_a_prompt_out_is_a_bug(prompts, store):
    with pytest.raises(RuntimeError, match="left 36 prompts without an answer"):
        respond(lambda prompts, max_new_tokens: iter(()), prompts, 3, store)


SLOW_RUN = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from actor_tune.engines.engine import Answer
    from actor_tune.prompts.prompt import Prompt
    from actor_tune.engines.respond import respond

    store, asked, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])

    def engine(prompts, max_new_tokens):
        for row, prompt in enumerate(prompts):
            time.sleep(seconds)
            with asked.open("a") as stream:
                stream.write(prompt.text + "\\n")
            yield Answer(row, "to " + prompt.text, True)

    prompts = [Prompt(f"prompt {number}", "harmless", "s") for number in range(20)]
    responses = respond(engine, prompts, 3, store, portion=None)
    assert [response.text for response in responses] == ["to " + prompt.text for prompt in prompts]
    """
)


def test_a_run_that_was_killed_goes_on_and_asks_nothing_twice(store, tmp_path):
    asked = tmp_path / "asked.txt"
    command = [sys.executable, "-c", SLOW_RUN, str(store), str(asked)]
    with subprocess.Popen([*command, "0.2"]) as process:
        deadline = time.monotonic() + 60
        while not (store.exists() and len(stored(store)) >= 5):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()  # SIGKILL
    done = {row["prompt"] for row in stored(store)}
    assert 5 <= len(done) < 20
    asked.unlink()
    subprocess.run([*command, "0"], check=True)
    assert len(stored(store)) == 20
    assert {row["prompt"] for row in stored(store)} == {f"prompt {number}" for number in range(20)}
    assert set(asked.read_text().splitlines()) == {f"prompt {number}" for number in range(20)} - done


def test_a_conversation_survives_the_file(store):
    context = (Message("system", "s"), Message("user", "u"), Message("assistant", "a"))
    prompts = [Prompt("q", "harmless", "s", context)]
    respond(echo(), prompts, 3, store)
    assert respond(None, prompts, 3, store)[0].prompt == prompts[0]
