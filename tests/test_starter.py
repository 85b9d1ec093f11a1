import csv
import importlib.resources
import io
from collections import Counter

import actor_tune.prompts
from actor_tune.prompts.prompt import KINDS, Prompt
from actor_tune.prompts.starter import TWINS, starter, with_missing_kinds, with_starter


def test_what_is_done_to_the_starter_prompts_in_one_place_is_not_seen_in_another():
    """They are read once."""
    first = starter("train")
    kept = list(first)
    first.clear()
    assert starter("train") == kept
    assert {prompt.kind for prompt in kept} == set(KINDS)


def test_those_that_are_given_are_not_mixed_in_again():
    given = starter("train")[:3]
    assert with_starter(given) == starter("train")


def test_they_are_many_and_each_form_has_all_kinds_and_twins_and_is_not_mixed_in():
    file = importlib.resources.files(actor_tune.prompts) / "data" / "prompts.csv"
    rows = list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"), newline="")))
    forms = {row["form"] for row in rows} - {""}
    assert len(forms) == 10
    for form in forms:
        own = [row for row in rows if row["form"] == form]
        kinds = Counter(row["kind"] for row in own)
        assert kinds["harmful"] == kinds["pseudo_harmful"] >= 60
        assert kinds["harmless"] >= 40
        assert all(count == 2 for count in Counter(row["pair"] for row in own if row["pair"]).values())
        assert {row["part"] for row in own} == {"forms"}
    assert not {prompt.text for prompt in with_starter([])} & {prompt.text for prompt in starter("forms")}


def test_the_set_of_twins_is_of_harmful_prompts():
    assert {prompt.kind for prompt in starter("held_out") if prompt.set == TWINS} == {"harmful"}


def test_where_no_prompts_are_given_all_are_there_in_the_order_that_python_gives_them_in():
    assert with_missing_kinds([]) == starter("train")


def test_a_prompt_given_that_is_a_starter_prompt_of_another_kind_is_not_taken_twice():
    (known, *_) = (prompt for prompt in starter("train") if prompt.kind == "harmless")
    found = with_missing_kinds([Prompt(known.text.upper(), "pseudo_harmful", "mine")])
    assert [prompt.kind for prompt in found if prompt.text.lower() == known.text.lower()] == ["pseudo_harmful"]
