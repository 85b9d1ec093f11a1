import csv
import json
import re
from typing import get_args

import pytest

from actor_tune.errors import UserError
from actor_tune.prompts.prompt import (
    KINDS,
    Message,
    Prompt,
    distinct,
    fingerprint,
    limit_per_set,
    of_kind,
    require,
    with_system_prompt,
)
from actor_tune.prompts.read import load_prompts, load_prompts_of_kind, load_responses
from actor_tune.prompts.split import split_validation
from actor_tune.prompts.starter import StarterPart, starter
from actor_tune.records.file import convert, row_json
from actor_tune.records.response import PromptRow, conversation


def test_csv_jsonl_and_parquet_with_the_same_rows_give_the_same_prompts(tmp_path):
    import pyarrow
    import pyarrow.parquet

    (tmp_path / "a.csv").write_text('prompt,kind,set\n"Hi, you",harmless,x\nBad,harmful,y\n')
    (tmp_path / "a.jsonl").write_text(
        '{"prompt": "Hi, you", "kind": "harmless", "set": "x"}\n\n{"prompt": "Bad", "kind": "harmful", "set": "y"}\n'
    )
    table = {"prompt": ["Hi, you", "Bad"], "kind": ["harmless", "harmful"], "set": ["x", "y"]}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "a.parquet")
    expected = [Prompt("Hi, you", "harmless", "x"), Prompt("Bad", "harmful", "y")]
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        assert load_prompts(tmp_path / name) == expected


def test_the_set_defaults_to_the_stem_of_the_file(tmp_path):
    (tmp_path / "mine.csv").write_text("prompt,kind\nHello,harmless\n")
    assert load_prompts(tmp_path / "mine.csv")[0].set == "mine"


def test_a_txt_file_is_one_prompt_a_line(tmp_path):
    (tmp_path / "bad.txt").write_text("one\n\n  two \n")
    expected = [Prompt("one", "harmful", "bad"), Prompt("two", "harmful", "bad")]
    assert load_prompts_of_kind(tmp_path / "bad.txt", "harmful") == expected


def test_other_columns_are_passed_over_and_named_once(tmp_path, caplog):
    (tmp_path / "a.csv").write_text("id,prompt,kind,label\n1,Hi,harmless,x\n2,Ho,harmless,y\n")
    with caplog.at_level("INFO"):
        assert [prompt.text for prompt in load_prompts(tmp_path / "a.csv")] == ["Hi", "Ho"]
    (line,) = caplog.messages
    assert line.endswith("a.csv: columns passed over: id, label")
    load_responses(tmp_path / "a.csv")
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", None, "a.csv: no such file; expected a file to read; check the path"),
        ("a.csv", "", "a.csv: no rows"),
        ("a.csv", "prompt,kind\n", "a.csv: no rows"),
        ("a.csv", "text,kind\nHi,harmless\n", "no column `prompt` (columns: text, kind)"),
        ("a.csv", "prompt\nHi\n", "no column `kind` (columns: prompt)"),
        ("a.csv", "prompt,kind\nHi,benign\n", "row 2: kind 'benign'; expected one of harmful, harmless"),
        ("a.csv", "prompt,kind\n  ,harmless\n", "row 2: an empty prompt"),
        ("a.csv", "prompt,kind\nHi, you,harmless\n", "line 2: more or fewer fields than the header has"),
        ("a.jsonl", '{"prompt": "Hi"\n', "line 1: not JSON"),
        ("a.jsonl", '["Hi"]\n', "expected an object"),
        ("a.parquet", "no parquet", "not parquet"),
        ("a.xlsx", "PK", "a file that ends in '.xlsx'; expected one of .csv, .tsv, .json, .jsonl, .parquet, .txt"),
        ("a.tsv", "prompt\tkind\n", "no rows"),
        ("a.txt", "Hi\n", "a txt file has no column `kind`"),
    ],
)
def test_a_wrong_file_gets_one_line_that_says_what_is_wrong(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        load_prompts(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_table_of_another_kind_than_the_option_says_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("prompt,kind\nHi,harmless\n")
    with pytest.raises(UserError, match=re.escape("row 2: kind 'harmless'; expected 'harmful'")):
        load_prompts_of_kind(tmp_path / "a.csv", "harmful")


TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Kill the lights?"},
]


def test_a_conversation_is_read_from_every_format_and_handed_on_whole(tmp_path):
    import pyarrow
    import pyarrow.parquet

    rows = [{"messages": TURNS, "kind": "pseudo_harmful", "set": "talk"}]
    (tmp_path / "a.jsonl").write_text(json.dumps(rows[0]) + "\n")
    with (tmp_path / "a.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerows([["messages", "kind", "set"], [json.dumps(TURNS), "pseudo_harmful", "talk"]])
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        (prompt,) = load_prompts(tmp_path / name)
        assert prompt.text == "Kill the lights?"
        assert prompt.messages() == TURNS
        row = PromptRow(prompt=prompt.text, kind=prompt.kind, set=prompt.set, messages=conversation(prompt))
        assert convert(row_json(row), PromptRow, name).asked == prompt
    assert load_prompts_of_kind(tmp_path / "a.jsonl", "pseudo_harmful") == [prompt]


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("Hi", "`messages`: not JSON"),
        ([], "no column `prompt`"),
        ({"role": "user"}, "`messages` is {'role': 'user'}; expected a list of turns"),
        ([{"role": "human", "content": "Hi"}], "a turn"),
        ([{"role": "user", "content": 3}], "a turn"),
        ([{"role": "assistant", "content": "Hi"}], "the last turn is not a user's query"),
        ([{"role": "user", "content": " "}], "the last turn is not a user's query"),
    ],
)
def test_a_wrong_conversation_gets_one_line(tmp_path, messages, message):
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": messages, "kind": "harmless"}) + "\n")
    with pytest.raises(UserError, match=re.escape(message)):
        load_prompts(tmp_path / "a.jsonl")


def test_a_system_prompt_is_put_before_what_has_none_of_its_own():
    plain = Prompt("x", "harmless", "s")
    talk = Prompt("x", "harmless", "s", (Message("user", "Hi"), Message("assistant", "Hello")))
    own = Prompt("x", "harmless", "s", (Message("system", "Mine."),))
    first, second, third = with_system_prompt([plain, talk, own], "Be kind.")
    assert [turn["role"] for turn in first.messages()] == ["system", "user"]
    assert [turn["role"] for turn in second.messages()] == ["system", "user", "assistant", "user"]
    assert third == own


def test_the_same_query_in_two_conversations_is_two_prompts():
    one = Prompt("x", "harmful", "s")
    other = Prompt("x", "harmless", "s", (Message("user", "Hi"), Message("assistant", "Hello")))
    assert distinct([one, other]) == [one, other]
    assert fingerprint([one]) != fingerprint([Prompt("x", "harmful", "s", other.context)])


def test_too_few_prompts_of_a_kind_are_named():
    with pytest.raises(UserError, match=r"0 of kind harmless; expected at least 1; add some with `harmless=FILE`"):
        require([Prompt("x", "harmful", "s"), Prompt("y", "pseudo_harmful", "s")], 1)


def test_the_validation_part_has_its_share_of_every_set_and_nothing_in_common_with_the_rest():
    prompts = [Prompt(f"{kind} {number}", kind, kind) for kind in KINDS for number in range(20)]
    split = split_validation(prompts, 0.25, seed=1)
    assert {kind: len(of_kind(split.validation, kind)) for kind in KINDS} == dict.fromkeys(KINDS, 5)
    assert sorted(split.train + split.validation, key=str) == sorted(prompts, key=str)
    assert split_validation(prompts, 0.25, seed=1) == split
    assert split_validation(prompts, 0.25, seed=2) != split


def test_a_prompt_alone_in_its_set_is_trained_on():
    prompts = [Prompt(f"{kind} {number}", kind, kind) for kind in KINDS for number in range(4)]
    alone = Prompt("alone", "harmful", "alone")
    assert alone in split_validation([*prompts, alone], 0.25, seed=0).train
    with pytest.raises(UserError, match="the harmful prompts are alone in their sets"):
        split_validation([Prompt(str(number), "harmful", str(number)) for number in range(9)], 0.25, seed=0)


def test_repeated_prompts_are_used_once_and_one_of_two_kinds_is_refused():
    one, again = Prompt("x", "harmful", "a"), Prompt("x", "harmful", "b")
    assert distinct([one, again]) == [one]
    with pytest.raises(UserError, match="'x' is harmful and harmless; expected one kind for each prompt"):
        distinct([one, Prompt("x", "harmless", "a")])


def test_unusual_line_separators_do_not_break_a_prompt_in_two(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "a\u2028b", "kind": "harmful"}\n', encoding="utf-8")
    (tmp_path / "a.csv").write_text("prompt,kind\na\u2028b,harmful\n", encoding="utf-8")
    (tmp_path / "a.txt").write_text("a\u2028b\n", encoding="utf-8")
    assert (
        load_prompts(tmp_path / "a.jsonl") == load_prompts(tmp_path / "a.csv") == [Prompt("a\u2028b", "harmful", "a")]
    )
    assert load_prompts_of_kind(tmp_path / "a.txt", "harmful") == [Prompt("a\u2028b", "harmful", "a")]


def test_windows_line_ends_and_line_breaks_in_a_quoted_prompt_are_read(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'prompt,kind\r\n"two\r\nlines",harmful\r\n')
    (tmp_path / "a.txt").write_bytes(b"one\r\ntwo\r\n")
    assert load_prompts(tmp_path / "a.csv")[0].text == "two\r\nlines"
    assert [prompt.text for prompt in load_prompts_of_kind(tmp_path / "a.txt", "harmful")] == ["one", "two"]


def test_an_empty_cell_of_a_parquet_file_is_not_the_prompt_none(tmp_path):
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"prompt": ["Hi", None], "kind": ["harmless", "harmless"]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match="row 2: `prompt` is None; expected a string"):
        load_prompts(tmp_path / "a.parquet")


def test_the_limit_holds_for_each_set():
    prompts = [Prompt(str(number), "harmful", "ab"[number % 2]) for number in range(10)]
    assert [prompt.text for prompt in limit_per_set(prompts, 2)] == ["0", "1", "2", "3"]


def test_the_fingerprint_changes_with_any_prompt():
    one, other = Prompt("x", "harmful", "s"), Prompt("x", "harmless", "s")
    assert fingerprint([one]) == fingerprint([one])
    assert len({fingerprint(prompts) for prompts in ([one], [other], [one, other], [other, one])}) == 4


def test_the_starter_prompts_are_many_distinct_and_spread():
    import importlib.resources

    source = importlib.resources.files("actor_tune") / "prompts" / "data" / "prompts.csv"
    with source.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len({row["prompt"] for row in rows}) == len(rows)
    for kind in KINDS:
        mine = [row for row in rows if row["kind"] == kind]
        assert len(mine) >= 160
        assert len({row["category"] for row in mine}) >= 10
    parts = {part: starter(part) for part in get_args(StarterPart)}
    assert sum(map(len, parts.values())) == len(rows) >= 3000
    for prompts in parts.values():
        require(prompts, 40)
    assert len(of_kind(parts["held_out"], "harmful")) >= 300  # the power of the safety gate


def test_every_pseudo_harmful_starter_prompt_has_a_harmful_twin_in_the_same_part():
    import importlib.resources

    source = importlib.resources.files("actor_tune") / "prompts" / "data" / "prompts.csv"
    with source.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    twins = {row["pair"]: row for row in rows if row["kind"] == "harmful" and row["pair"]}
    benign = [row for row in rows if row["kind"] == "pseudo_harmful"]
    assert {row["pair"] for row in benign} == set(twins)
    assert all(twins[row["pair"]]["part"] == row["part"] for row in benign)
