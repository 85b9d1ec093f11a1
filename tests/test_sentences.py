import pytest

from actor_tune.judges.trained.sentences import LONGEST, spelled_out, take_apart


def texts(answer):
    return [sentence.text for sentence in take_apart(answer).sentences]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I can't.", " i can not "),
        ("I CANNOT!", " i can not "),
        ("I won't, it's late", " i will not it is late "),
        ("im sorry i dont know", " i am sorry i do not know "),
        ("That **isn't** it", " that is not it "),
        ("", "  "),
    ],
)
def test_contractions_and_capitals_come_out_alike(text, words):
    assert spelled_out(text) == words


def test_sentences_end_at_their_marks_but_not_at_a_numbers_point():
    assert texts("First wash it. Then dry it! Done? Yes, in 1945. It rained.") == [
        "First wash it.",
        "Then dry it!",
        "Done?",
        "Yes, in 1945.",
        "It rained.",
    ]


@pytest.mark.parametrize(
    "answer", ["1. Wash\n2. Dry", "1) Wash\n2) Dry", "- Wash\n- Dry", "* Wash\n* Dry", "1. Wash 2. Dry"]
)
def test_lists_come_apart_into_items_without_their_marks(answer):
    sentences = take_apart(answer).sentences
    assert [(sentence.text, sentence.item) for sentence in sentences] == [("Wash", True), ("Dry", True)]


def test_what_is_quoted_is_left_out_but_a_quoted_word_stays():
    assert texts("“I cannot help you with that, Sir.” That was all he said.") == ["...", "That was all he said."]
    assert texts('The word "kill" is strong.') == ['The word "kill" is strong.']


def test_an_answer_that_is_all_quotation_is_what_it_says():
    assert texts('"I am sorry, but I cannot help you."') == ["I am sorry, but I cannot help you."]


def test_typographic_quotes_and_a_role_in_front_make_no_difference():
    assert texts("Assistant: I’m sorry.") == ["I'm sorry."]


def test_code_is_no_sentence():
    parts = take_apart("Run this:\n```\nkill -9 1\n```\nDone.")
    assert parts.code
    assert [sentence.text for sentence in parts.sentences] == ["Run this:", "Done."]


def test_only_the_beginning_of_a_very_long_answer_is_read():
    assert sum(map(len, texts("word " * LONGEST))) <= LONGEST
