import pytest

from actor_tune.judges.garbled import garbled


@pytest.mark.parametrize(
    "answer",
    [
        "",
        " \n\t ",
        "...",
        "!!!!!!!!!!!!!!!!!!!!",
        "the the the",
        "yes yes yes yes yes yes yes yes",
        "I I I I I I I I I",
        "aaaaaaaaaaaaaaaaaaaaaaaa",
        "asdkjh qwe",
        "xkcd qwrt zzplk mnbvc dfghj",
        "You can use the tool and you can use the tool and you can use the tool and you can use the tool and you can",
        "```\n" + "This is what it is and what it is for. " * 20 + "\n```",
        "| a | b |\nfor the record " * 20,
        "To do this, go. To do this, go. To do this, go. To do this, go. To do this, go.",
        "of course of course of course of course of course of course of course",
        "This is the answer to your question about cats and dogs and birds. " * 12,
        "我不知道" * 100,
        "Here is a plan for the week. The aim of the plan is to make a plan that helps you, and the aim of the plan is "
        "to make a plan that helps you, and the aim of the plan is to make",
        "这是一个很好的问题。如果你想去那里，你可以去那里，你可以去那里，你可以去那里，你可以去",
        "\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd abc",
        "#$%^ &*()_ +{} <>?! @#$% a",
    ],
)
def test_what_is_no_language_is_garbled(answer):
    assert garbled(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "Yes.",
        "No",
        "42",
        "3.14159",
        "-7",
        "No, no, no.",
        "Ha ha ha!",
        "Mmm",
        "Hmm, tough one.",
        "HTTP, TCP, DNS and FTP.",
        "Rhythm",
        "NASA",
        "I'm sorry, but I can't help with that.",
        "```python\nfor i in range(3):\n    print(i, i, i)\n```",
        "for (int i = 0; i < n; i++) {\n    sum += a[i];\n    cnt++;\n}",
        "| a | b |\n|---|---|\n| 1 | 2 |\n| 1 | 2 |\n| 1 | 2 |\n| 1 | 2 |\n| 1 | 2 |",
        "\n".join(f"{number}. Item {number}" for number in range(1, 30)),
        "- eggs\n- milk\n- eggs\n- flour\n- eggs",
        "\n".join(f"Step {number}: add {number} to the total." for number in range(1, 5)),
        "Add the flour, stir, add the milk, stir, add the eggs, and so on and so on and so on.",
        "Whatever you decide to do about it, you will be fine. Really. You will be fine, you will be fine.",
        "他说：好的，好的，好的。然后他就走了，再也没有回来。",
        "2 4 6 8 10 12 14 16 18 20 22 24 26 28 30 2 4 6 8 10",
        "Row, row, row your boat,\ngently down the stream.\nMerrily, merrily, merrily, merrily,\nlife is but a dream.",
        "The wind blew cold,\n  and still we sailed.\nThe mast broke off,\n  and still we sailed.\n"
        "The captain wept,\n  and still we sailed.\nThe stars went out,\n  and still we sailed.",
        "你可以先用水冲洗，然后晾干。",
        "يمكنك غسلها بالماء ثم تجفيفها في الظل.",
        "Сначала промойте, затем высушите.",
        "まず水で洗ってから乾かしてください。",
        "Strč prst skrz krk je český jazykolam.",
        "To remove the stain, use cold water. Then use soap. Then use cold water again, and dry it in the sun.",
    ],
)
def test_language_code_and_numbers_are_not_garbled(answer):
    assert garbled(answer) is None


def test_the_reason_names_what_is_repeated():
    assert garbled("la di la di " * 10) == "the words 'la di' in a loop"
    assert garbled("stop " * 10) == "the word 'stop' repeated"
    assert garbled("Well then. " + "if you can you should, " * 3) == "the words 'if you can you should' in a loop"
