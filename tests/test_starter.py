from actor_tune.prompts.prompt import KINDS
from actor_tune.prompts.starter import starter, with_starter


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
