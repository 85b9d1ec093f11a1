from collections import Counter

from actor_tune.prompts.prompt import KINDS
from actor_tune.prompts.starter import MIXED, shipped, starter, with_starter


def test_what_is_done_to_the_starter_prompts_in_one_place_is_not_seen_in_another():
    """They are read once."""
    first = starter("train")
    kept = list(first)
    first.clear()
    assert starter("train") == kept
    assert {prompt.kind for prompt in kept} == set(KINDS)


def test_those_that_are_given_are_not_mixed_in_again():
    given = starter("train")[:3]
    texts = [prompt.text for prompt in with_starter(given)]
    assert len(texts) == len(set(texts))
    assert with_starter(given)[:3] == given


def test_so_many_are_mixed_in_with_twins_together_and_others_by_another_seed():
    mixed = with_starter([], seed=1)
    assert MIXED <= len(mixed) <= MIXED + 1
    assert mixed != with_starter([], seed=2)
    pairs = Counter(item.pair for item in shipped() if item.pair and item.prompt in set(mixed))
    assert set(pairs.values()) == {2}


def test_those_that_are_given_count_as_mixed_in():
    mixed = with_starter([], seed=1)
    assert with_starter(mixed, seed=1) == mixed
    assert MIXED <= len(with_starter(starter("train")[:100], seed=1)) <= MIXED + 1


def test_they_are_many_and_each_form_has_all_kinds_and_twins():
    assert len(shipped()) >= 3000
    forms = {item.form for item in shipped()} - {""}
    assert len(forms) == 10
    for form in forms:
        own = [item for item in shipped() if item.form == form]
        kinds = Counter(item.prompt.kind for item in own)
        assert kinds["harmful"] == kinds["pseudo_harmful"] >= 60
        assert kinds["harmless"] >= 40
        assert all(count == 2 for count in Counter(item.pair for item in own if item.pair).values())
