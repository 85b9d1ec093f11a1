"""Files as people have them: other separators, names, spellings and layouts come to the same prompts, or to a line."""

import json
import re

import pytest

from actor_tune.errors import UserError
from actor_tune.prompts.presets import read, read_source
from actor_tune.prompts.prompt import KINDS, Message, Prompt
from actor_tune.prompts.read import columns_of, load_prompts, load_prompts_of_kind, load_responses
from actor_tune.prompts.starter import starter, with_missing_kinds

TEXT = 'Kill the lights; then, at "nine",\tgo?'
PROMPTS = [Prompt(TEXT, "pseudo_harmful", "mine"), Prompt("Name a bird.", "harmless", "mine")]


def written(path, content):
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize(("separator", "suffix"), [(",", "csv"), (";", "csv"), ("\t", "csv"), ("\t", "tsv")])
def test_the_header_says_what_separates_fields_whatever_the_texts_hold(tmp_path, separator, suffix):
    rows = [["prompt", "kind"], [TEXT, "pseudo_harmful"], ["Name a bird.", "harmless"]]
    lines = [separator.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    lines[0] = separator.join(rows[0])
    file = written(tmp_path / f"mine.{suffix}", "\ufeff" + "\n".join(lines))
    assert load_prompts(file) == PROMPTS


def test_a_file_of_one_column_has_commas_whatever_its_texts_hold(tmp_path):
    file = written(tmp_path / "mine.csv", 'prompt\nKill the lights; now?\n"Name a bird, please."\n')
    assert [prompt.text for prompt in load_prompts_of_kind(file, "harmless")] == [
        "Kill the lights; now?",
        "Name a bird, please.",
    ]


def test_a_header_that_could_be_read_in_two_ways_is_not_guessed_and_a_quoted_one_is_read(tmp_path):
    file = written(tmp_path / "mine.csv", "prompt;kind;note, free\nHi;harmless;x\n")
    with pytest.raises(UserError, match=re.escape("line 1: commas and semicolons between the names of the columns")):
        load_prompts(file)
    file = written(tmp_path / "mine.csv", 'prompt;kind;"note, free"\nHi;harmless;x\n')
    assert load_prompts(file) == [Prompt("Hi", "harmless", "mine")]


def test_a_text_with_the_separator_in_it_is_named_by_its_own_word(tmp_path):
    file = written(tmp_path / "mine.csv", "prompt;kind\nHi; you;harmless\n")
    with pytest.raises(UserError, match=r"line 2: more or fewer fields .* quote texts that contain semicolons"):
        load_prompts(file)


@pytest.mark.parametrize(
    "said",
    ["pseudo_harmful", "pseudo-harmful", "Pseudo Harmful", "PSEUDOHARMFUL", "pseudo\u2011harmful", " pseudo-harmful "],
)
def test_a_kind_is_known_in_any_spelling(tmp_path, said):
    file = written(tmp_path / "mine.json", json.dumps([{"prompt": "Hi", "kind": said}]))
    assert (
        load_prompts(file) == load_prompts_of_kind(file, "pseudo_harmful") == [Prompt("Hi", "pseudo_harmful", "mine")]
    )
    with pytest.raises(UserError, match="expected 'harmful', as the setting says"):
        load_prompts_of_kind(file, "harmful")


@pytest.mark.parametrize("said", ["safe", "unsafe", "benign", "pseudo", "harm ful ly", "not harmful", "1"])
def test_a_kind_that_could_mean_two_is_refused_with_the_list_of_those_that_are_known(tmp_path, said):
    file = written(tmp_path / "mine.csv", f"prompt,kind\nHi,{said}\n")
    with pytest.raises(UserError, match=f"kind '{said}'; expected one of {', '.join(KINDS)}"):
        load_prompts(file)


def test_a_json_file_is_a_list_of_objects_or_of_strings(tmp_path):
    rows = [{"prompt": prompt.text, "kind": prompt.kind} for prompt in PROMPTS]
    assert load_prompts(written(tmp_path / "mine.json", json.dumps(rows, indent=2))) == PROMPTS
    file = written(tmp_path / "mine.json", json.dumps(["Hi", {"prompt": "Ho"}]))
    assert [prompt.text for prompt in load_prompts_of_kind(file, "harmful")] == ["Hi", "Ho"]
    assert [prompt.text for prompt in load_prompts_of_kind(written(file, '["Hi"]'), "harmful", {"prompt": "text"})]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"prompt": "Hi"}', 'mine.json: {"prompt": "Hi"}, no list; expected a list of objects or of strings'),
        ('["Hi", 3]', "mine.json, row 2: 3; expected a list of objects or of strings"),
        ('["Hi", " "]', "mine.json, row 2: an empty prompt"),
        ('[\n{"prompt": "Hi"},\n]', "mine.json: not JSON (Illegal trailing comma before end of array, line 2)|line 3"),
        ('{"prompt": "Hi"}\n{"prompt": "Ho"}\n', "or name it .jsonl where each line is an object"),
        ("[]", "mine.json: no rows"),
        ("", "mine.json: not JSON"),
    ],
)
def test_a_json_file_that_is_none_is_told_in_a_line_with_the_row(tmp_path, content, said):
    file = written(tmp_path / "mine.json", content)
    with pytest.raises(UserError) as caught:
        load_prompts_of_kind(file, "harmful")
    assert any(part in str(caught.value) for part in said.split("|"))


SHARED = [
    {"from": "system", "value": "Be brief."},
    {"from": "human", "value": "Name a bird."},
    {"from": "gpt", "value": "Wren."},
    {"from": "human", "value": "Another?"},
    {"from": "gpt", "value": "Owl."},
]
CONTEXT = (Message("system", "Be brief."), Message("user", "Name a bird."), Message("assistant", "Wren."))


@pytest.mark.parametrize("turns", [SHARED, SHARED[:4], json.dumps(SHARED)])
def test_the_last_human_turn_of_a_shared_conversation_is_the_prompt(tmp_path, turns):
    file = written(tmp_path / "mine.json", json.dumps([{"id": "x", "conversations": turns, "kind": "harmless"}]))
    assert load_prompts(file) == [Prompt("Another?", "harmless", "mine", CONTEXT)]


def test_conversations_may_have_roles_and_contents_and_messages_may_not_end_with_an_answer(tmp_path):
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    file = written(tmp_path / "mine.json", json.dumps([{"conversations": turns, "kind": "harmless"}]))
    assert load_prompts(file) == [Prompt("Hi", "harmless", "mine")]
    file = written(tmp_path / "mine.json", json.dumps([{"messages": turns, "kind": "harmless"}]))
    with pytest.raises(UserError, match="the last turn is not a user's query"):
        load_prompts(file)


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({"conversations": SHARED[:1]}, "row 1: no human turn with text at its end"),
        ({"conversations": [{"from": "tool", "value": "x"}]}, "expected from (human, gpt, system, user, assistant)"),
        ({"conversations": [{"from": "human", "value": 3}]}, "row 1: a turn {'from': 'human', 'value': 3}"),
        ({"conversations": [{"from": ["human"], "value": "x"}]}, "row 1: a turn"),
        ({"conversations": ["Hi"]}, "row 1: a turn 'Hi'"),
        ({"conversations": [{"from": "human", "value": " "}]}, "row 1: no human turn with text"),
        ({"conversations": {"from": "human"}}, "row 1: `conversations` is"),
        (
            {"conversations": SHARED, "prompt": "Name a bird."},
            "`prompt` is 'Name a bird.' and `conversations` end with",
        ),
        ({"conversations": SHARED, "messages": SHARED}, "`messages` and `conversations`; expected one of them"),
    ],
)
def test_a_shared_conversation_that_cannot_be_read_is_named(tmp_path, cells, said):
    file = written(tmp_path / "mine.json", json.dumps([cells | {"kind": "harmless"}]))
    with pytest.raises(UserError, match=re.escape(said)):
        load_prompts(file)


def test_columns_of_other_names_are_read_and_those_left_are_named_once(tmp_path, caplog):
    file = written(tmp_path / "mine.csv", "id,prompt,text,label\n1,x1,Hi,Harmful\n2,x2,Ho,harmless\n")
    names = columns_of(" prompt=text, kind = label")
    with caplog.at_level("INFO"):
        found = load_prompts(file, names)
    assert found == [Prompt("Hi", "harmful", "mine"), Prompt("Ho", "harmless", "mine")]
    assert [line.split(": ", 1)[1] for line in caplog.messages] == ["columns passed over: id, prompt"]
    assert read(file, columns=names) == read_source(str(file), columns=names) == found
    file = written(tmp_path / "answers.csv", "text,label,said\nHi,harmful,No.\nHo,harmless,\n")
    assert load_responses(file, names | {"response": "said"}) == {Prompt("Hi", "harmful", "answers"): "No."}


def test_a_file_of_one_kind_needs_no_column_of_kinds_and_a_list_of_strings_no_names_at_all(tmp_path):
    names = columns_of("prompt=text,kind=label")
    file = written(tmp_path / "mine.csv", "text\nHi\n")
    assert read(harmful=[file], columns=names) == [Prompt("Hi", "harmful", "mine")]
    assert read(harmful=[written(tmp_path / "mine.txt", "Hi\n")], columns=names) == [Prompt("Hi", "harmful", "mine")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prompt", "`columns=prompt`: no names in pairs"),
        ("prompt=", "no names in pairs"),
        ("prompt=a,prompt=b", "no names in pairs, each once"),
        ("text=prompt", "`columns=text=prompt`: 'text', which no prompt has; expected one of prompt, messages"),
        (",", "no names in pairs"),
    ],
)
def test_names_that_say_nothing_are_refused(text, said):
    with pytest.raises(UserError, match=re.escape(said)):
        columns_of(text)


def test_a_column_that_is_not_there_is_named_as_the_user_calls_it(tmp_path):
    file = written(tmp_path / "mine.csv", "text,label\nHi,harmful\n,harmful\n")
    with pytest.raises(UserError, match=re.escape("no column `txt` (columns: text, label); expected `txt`, as")):
        load_prompts(file, {"prompt": "txt"})
    with pytest.raises(UserError, match=r"no column `kind` .*; rename .*, or name yours with `columns=OURS=YOURS`"):
        load_prompts(file)
    with pytest.raises(UserError, match="row 3: an empty text"):
        load_prompts(file, {"prompt": "text", "kind": "label"})


def test_a_kind_that_is_not_given_comes_from_the_starter_prompts_and_that_is_said_once(caplog):
    mine = [Prompt(f"ticket {number}", "pseudo_harmful", "tickets") for number in range(9)]
    with caplog.at_level("INFO"):
        found = with_missing_kinds(mine)
    trained = starter("train")
    assert found == [*mine, *(prompt for prompt in trained if prompt.kind != "pseudo_harmful")]
    (line,) = caplog.messages
    assert line == (
        "no harmful and no harmless prompts given: built-in starter prompts are taken (342 harmful, 380 harmless)"
    )
    assert with_missing_kinds(found) == found
    assert len(caplog.messages) == 1


def test_spaces_around_the_names_of_columns_are_none_of_theirs(tmp_path):
    file = tmp_path / "p.csv"
    file.write_text("prompt, kind\nBoil an egg,harmless\n")
    assert load_prompts(file) == [Prompt("Boil an egg", "harmless", "p")]
