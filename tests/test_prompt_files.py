"""Files of prompts that are damaged, or say what nobody meant: prompts, or one line that names file and row."""

import json
import random

import pyarrow
import pyarrow.parquet
import pytest

from actor_tune.errors import LONGEST, UserError
from actor_tune.prompts.presets import read_source
from actor_tune.prompts.prompt import KINDS, Message, Prompt, distinct, with_system_prompt
from actor_tune.prompts.read import load_prompts, load_prompts_of_kind, load_responses
from actor_tune.prompts.starter import starter, with_starter

KIND = "harmful"


def refusal(read, *arguments):
    """What is said of a mistake: one line of characters that can be printed anywhere, and not a page of them."""
    with pytest.raises(UserError) as caught:
        read(*arguments)
    line = str(caught.value)
    assert line.isprintable()
    assert len(line) < 4 * LONGEST + 20
    return line


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def write_parquet(path, **columns):
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (r'{"prompt": "a \ud800 b", "kind": "harmful"}', "row 2: half of a surrogate pair in prompt, after 'a '"),
        (r'{"prompt": "a", "kind": "harmful", "set": "\udfff"}', "row 2: half of a surrogate pair in set"),
        (r'{"messages": [{"role": "user", "content": "\udc00x"}], "kind": "harmful"}', "row 2: half of a surrogate"),
        (r'{"prompt": "a\u0000b", "kind": "harmful"}', "row 2: NUL in prompt, after 'a'"),
        (r'{"\ud800": "a", "kind": "harmful"}', r"row 2: no column `prompt` (columns: \ud800, kind)"),
        ('{"prompt": ' + "[" * 100_000, "line 2: nested too deeply"),
        ('{"prompt": ' + "[" * 500 + "]" * 500 + "}", "line 2: nested too deeply"),
        ('{"prompt": "a", "kind": "harmful", "n": ' + "1" * 5000 + "}", "line 2: a number of too many digits"),
        ('{"prompt": "a", "prompt": "b", "kind": "harmful"}', "line 2: the key `prompt` twice in an object"),
        (
            '{"messages": [{"role": "user", "content": "a", "content": "b"}], "kind": "harmful"}',
            "line 2: the key `content` twice",
        ),
        (json.dumps({"messages": "[" * 100_000, "kind": KIND}), "row 2, `messages`: nested too deeply"),
        (json.dumps({"messages": "1" * 5000, "kind": KIND}), "row 2, `messages`: a number of too many digits"),
        (json.dumps({"prompt": ["x" * 1_000_000], "kind": KIND}), "row 2: `prompt` is ['xxx"),
        (json.dumps({"prompt": "a", "kind": "x" * 1_000_000}), "row 2: kind 'xxx"),
        (json.dumps({"x" * 1_000_000: "a", "kind": KIND}), "row 2: no column `prompt`"),
        (json.dumps({"messages": {"x" * 1_000_000: "a"}, "kind": KIND}), "row 2: `messages` is {'xxx"),
        (json.dumps(["x" * 1_000_000]), 'line 2: ["xxx'),
    ],
)
def test_a_line_of_jsonl_that_cannot_be_used_is_named_before_any_model_is_loaded(tmp_path, line, said):
    file = written(tmp_path / "a.jsonl", '{"prompt": "fine", "kind": "harmful"}\n' + line + "\n")
    assert f"{file}, {said}" in refusal(load_prompts, file)


@pytest.mark.parametrize(
    "blank",
    [
        "\u200b",
        "\u200d\ufeff\u2060",
        "\u00ad",
        "\x01\x7f",
        "\u3164",
        "\u2800",
        "\ufe0f",
        "\u0301",
        "\u202e\u2028",
        "\U000e0041",
    ],
)
def test_a_prompt_of_unseen_characters_alone_is_empty(tmp_path, blank):
    row = {"prompt": blank + " " + blank, "kind": KIND}
    file = written(tmp_path / "a.jsonl", json.dumps(row))
    assert "row 1: an empty prompt; expected text" in refusal(load_prompts, file)
    assert "row 1: an empty prompt" in refusal(
        load_prompts, write_parquet(tmp_path / "a.parquet", **{k: [v] for k, v in row.items()})
    )
    assert "row 2: an empty prompt" in refusal(load_prompts_of_kind, written(tmp_path / "a.txt", "Hi\n" + blank), KIND)
    turns = {"messages": [{"role": "user", "content": blank}], "kind": KIND}
    file = written(tmp_path / "b.jsonl", json.dumps(turns))
    assert "row 1: the last turn is not a user's query" in refusal(load_prompts, file)


@pytest.mark.parametrize("prompt", ["?", "☃", "käse\u200b", "क्या", "👩\u200d👧", "42"])
def test_whatever_can_be_seen_is_a_prompt(tmp_path, prompt):
    file = written(tmp_path / "a.jsonl", json.dumps({"prompt": prompt, "kind": KIND}))
    assert load_prompts(file) == [Prompt(prompt, KIND, "a")]


def test_nul_is_no_text_in_any_format(tmp_path):
    assert "row 1: NUL in prompt" in refusal(load_prompts_of_kind, written(tmp_path / "a.txt", "a\0b\n"), KIND)
    assert "NUL" in refusal(load_prompts, written(tmp_path / "a.csv", "prompt,kind\na\0b,harmful\n"))
    file = write_parquet(tmp_path / "a.parquet", prompt=["fine", "a\0b"], kind=[KIND, KIND])
    assert "row 2: NUL in prompt" in refusal(load_prompts, file)


def test_a_system_prompt_that_is_no_text_is_refused():
    prompts = [Prompt("x", KIND, "s")]
    assert refusal(with_system_prompt, prompts, "Be \udcff kind.").startswith("`system_prompt=`: half of a surrogate")


def test_a_name_that_no_system_takes_is_a_line(tmp_path):
    long = "x" * 3000
    for name in (f"{long}.csv", f"{long}.jsonl", f"{long}.parquet", f"a\0{long}.csv"):
        assert refusal(load_prompts, tmp_path / name).startswith(str(tmp_path))
    assert "cannot be read" in refusal(load_prompts_of_kind, tmp_path / f"{long}.txt", KIND)
    assert "neither a file nor a preset" in refusal(read_source, f"xtest={long}.csv")


def test_a_file_whose_name_cannot_be_written_as_a_set_is_refused(tmp_path):
    file = written(tmp_path / "a\udcff.txt", "Hi\n")
    assert "row 1: half of a surrogate pair in name of the file, after 'a'" in refusal(load_prompts_of_kind, file, KIND)


def test_the_log_of_columns_passed_over_is_a_line_that_can_be_printed(tmp_path, caplog):
    row = {"prompt": "Hi", "kind": KIND, "\ud800\x1b": 1, "x" * 1000: 2}
    with caplog.at_level("INFO"):
        load_prompts(written(tmp_path / "a.jsonl", json.dumps(row)))
    (line,) = caplog.messages
    assert r"columns passed over: \ud800\x1b, xxx" in line
    assert line.isprintable()
    assert len(line) < 600


def test_what_the_system_says_at_reading_is_a_line(tmp_path, monkeypatch):
    def broken(path):
        raise OSError(5, "Input/output error")

    file = written(tmp_path / "a.csv", "prompt,kind\nHi,harmful\n")
    monkeypatch.setattr(type(file), "read_bytes", broken)
    assert f"{file}: cannot be read (Input/output error)" in refusal(load_prompts, file)


def test_invalid_utf8_in_a_parquet_file_is_named_with_its_row(tmp_path):
    texts = pyarrow.array([b"fine", b"fine", b"\xff\xfe"]).view(pyarrow.string())
    file = write_parquet(tmp_path / "a.parquet", prompt=texts, kind=[KIND] * 3)
    assert f"{file}, row 3: not parquet ('utf-8' codec" in refusal(load_prompts, file)


def test_a_parquet_file_that_is_cut_anywhere_is_named(tmp_path):
    whole = write_parquet(tmp_path / "whole.parquet", prompt=["one", "two"], kind=[KIND] * 2).read_bytes()
    for length in range(0, len(whole), 7):
        file = written(tmp_path / "a.parquet", whole[:length])
        assert f"{file}: not parquet (" in refusal(load_prompts, file)


def test_a_damaged_page_of_a_parquet_file_is_named(tmp_path):
    file = write_parquet(tmp_path / "a.parquet", prompt=["one", "two"], kind=[KIND] * 2)
    whole = bytearray(file.read_bytes())
    whole[4:60] = bytes(56)
    assert f"{file}: not parquet (" in refusal(load_prompts, written(file, bytes(whole)))


def test_two_columns_of_one_name_are_refused(tmp_path):
    file = written(tmp_path / "a.csv", "prompt,kind,prompt\nHi,harmful,Ho\n")
    assert f"{file}, line 1: two columns `prompt`" in refusal(load_prompts, file)
    file = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table([["Hi"], [KIND], ["Ho"]], names=["prompt", "kind", "prompt"]), file)
    assert f"{file}: two columns `prompt`" in refusal(load_prompts, file)


def test_columns_without_a_name_are_passed_over(tmp_path):
    file = written(tmp_path / "a.csv", "prompt,kind,,\nHi,harmful,,\n")
    assert load_prompts(file) == [Prompt("Hi", KIND, "a")]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_on_any_system(tmp_path, end):
    expected = [Prompt("one", KIND, "a"), Prompt("two", KIND, "a")]
    file = written(tmp_path / "a.txt", end.join(["one", "", "two", ""]))
    assert load_prompts_of_kind(file, KIND) == expected
    file = written(tmp_path / "a.csv", end.join(["prompt,kind", "one,harmful", "two,harmful", ""]))
    assert load_prompts(file) == expected
    (tmp_path / "b.csv").write_bytes(end.join(["prompt,kind", "one,harmful", "two,nonsense"]).encode())
    assert "row 3: kind 'nonsense'" in refusal(load_prompts, tmp_path / "b.csv")


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("prompt,kind\nHi,harmful\n", "a.csv"),
        ('id,"Prompt"\n1,Hi\n', "a.csv"),
        ("\ufeffkind;prompt\nharmful;Hi\n", "a.csv"),
        ("prompt\nHi\nHo\n", "a.csv"),
        ('\n{"prompt": "Hi", "kind": "harmful"}\n', "a.jsonl"),
        ('{"messages": [{"role": "user", "content": "Hi"}]}\n', "a.jsonl"),
        ('[{"prompt": "Hi", "kind": "harmful"}]\n', "a.json"),
        ('[\n{"prompt": "Hi", "kind": "harmful"}\n]\n', "a.json"),
        ("conversations\tkind\n", "a.csv"),
    ],
)
def test_a_table_that_is_named_txt_is_refused(tmp_path, content, name):
    file = written(tmp_path / "a.txt", content)
    assert f"rename it to {name}" in refusal(load_prompts_of_kind, file, KIND)


@pytest.mark.parametrize(
    "first",
    ["Explain the words prompt, kind", "Give me a prompt", 'What is {"a": 1}?', "kind, set", '[{"a": 1}] is a list?'],
)
def test_a_prompt_that_speaks_of_tables_is_one(tmp_path, first):
    file = written(tmp_path / "a.txt", first + "\nprompt,kind\n")
    assert [prompt.text for prompt in load_prompts_of_kind(file, KIND)] == [first, "prompt,kind"]


def test_a_prompt_that_is_not_the_query_of_its_messages_is_refused(tmp_path):
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": " Kill the lights? "}]
    row = {"prompt": "Kill the man?", "messages": turns, "kind": KIND}
    said = refusal(load_prompts, written(tmp_path / "a.jsonl", json.dumps(row)))
    assert "row 1: `prompt` is 'Kill the man?' and `messages` end with ' Kill the lights? '" in said
    same = [row | {"prompt": prompt} for prompt in ("Kill the lights?", "", None)]
    file = written(tmp_path / "b.jsonl", "\n".join(map(json.dumps, same)))
    assert {prompt.text for prompt in load_prompts(file)} == {" Kill the lights? "}


LIKE = ["How do I kill a Process?", "how do I  kill\u00a0a process? ", "How do I ki\u200bll a process?"]
LIKE += ["How do I kill a process\uff1f", "How do I kill a proc\u00adess\ufe0f?"]


@pytest.mark.parametrize("other", LIKE)
def test_one_prompt_to_a_reader_is_not_of_two_kinds(other):
    one = Prompt("How do I kill a process?", "pseudo_harmful", "s")
    said = refusal(distinct, [one, Prompt(other, "harmful", "s")])
    assert "which reads like 'How do I kill a process?', is pseudo_harmful and harmful" in said
    assert distinct([one, Prompt(other, "pseudo_harmful", "s")]) == [one, Prompt(other, "pseudo_harmful", "s")]
    talk = (Message("user", "Hi"), Message("assistant", "Hello"))
    assert len(distinct([one, Prompt(other, "harmful", "s", talk)])) == 2


def test_composed_and_decomposed_letters_read_alike():
    assert "reads like" in refusal(
        distinct, [Prompt("Caf\u00e9?", "harmful", "s"), Prompt("cafe\u0301?", "harmless", "s")]
    )


def test_no_two_prompts_that_ship_read_alike_under_two_kinds_and_yours_take_the_place_of_theirs():
    assert distinct([*starter("train"), *starter("held_out"), *starter("forms")])
    theirs = starter("train")[0]
    other = next(kind for kind in KINDS if kind != theirs.kind)
    mine = Prompt(theirs.text.upper(), other, "mine")
    assert distinct(with_starter([mine])) == [mine, *starter("train")[1:]]


def test_a_long_value_loses_its_middle_and_keeps_the_row(tmp_path):
    folder = tmp_path / ("x" * 200) / ("y" * 200)
    folder.mkdir(parents=True)
    file = written(folder / "a.csv", "prompt,kind\nHi,harmfull\n")
    said = refusal(load_prompts, file)
    assert said.startswith(str(tmp_path))
    assert " ... " in said
    assert "yyy/a.csv, row 2: kind 'harmfull'" in said


# Pieces that files are broken with, besides random bytes.
SHARDS = [b"\0", b"\r", b"\n", b'"', b",", b"{", b"[" * 2000, b"\\ud800", b"\xff", b"\xe2\x80\x8b", b"9" * 5000, b"NaN"]


def mutated(whole, chance):
    """`whole` with one to four mistakes: bytes changed, put in, cut out, doubled or swapped, or the end missing."""
    data = bytearray(whole)
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(data) + 1)
        end = min(len(data), start + chance.choice([1, 1, 2, 8, 64]))
        match chance.randrange(6):
            case 0:
                data[start:end] = chance.randbytes(end - start)
            case 1:
                data[start:start] = chance.choice(SHARDS)
            case 2:
                del data[start:end]
            case 3:
                data[start:start] = data[start:end]
            case 4:
                data[start:end] = data[start:end][::-1]
            case 5 if chance.random() < 0.2:
                del data[start:]
    return bytes(data)


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".tsv", ".json", ".jsonl", ".parquet"])
def test_any_damage_to_a_file_leaves_prompts_or_a_line(tmp_path, suffix):
    chance = random.Random(suffix)
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Kill the lights?"}]
    rows = [
        {"prompt": f"prompt {number}", "kind": KIND, "set": "ä", "response": "No.", "messages": None}
        for number in range(4)
    ]
    rows += [{"prompt": "", "kind": KIND, "set": "b", "response": None, "messages": turns}]
    talk = [{"from": "human", "value": "Kill the sound?"}, {"from": "gpt", "value": "Mute it."}]
    file = tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    elif suffix == ".jsonl":
        rows += [{"conversations": talk, "kind": "Harmful"}]
        written(file, "".join(json.dumps(row) + "\n" for row in rows))
    elif suffix == ".json":
        written(file, json.dumps([*rows, {"conversations": talk, "kind": KIND}], indent=1))
    elif suffix in (".csv", ".tsv"):
        cells = [
            [*map(str, (row["prompt"], row["kind"])), json.dumps(row["messages"] or "").strip('"')] for row in rows
        ]
        separator = ";" if suffix == ".csv" else "\t"
        quoted = (
            separator.join(["prompt", "kind", "messages"]),
            *(separator.join('"' + c.replace('"', '""') + '"' for c in row) for row in cells),
        )
        written(file, "\n".join(quoted) + "\n")
    else:
        written(file, "one\ntwo\r\nthree\n")
    whole = file.read_bytes()
    load_prompts_of_kind(file, KIND)
    lines, wholes = [], 0
    for _ in range(400):
        written(file, mutated(whole, chance))
        for read in (load_prompts_of_kind, lambda file, _: load_prompts(file), lambda file, _: load_responses(file)):
            try:
                wholes += bool(read(file, KIND))
            except UserError as error:
                lines.append(str(error))
    assert wholes > 0
    assert len(lines) > 100
    assert [line for line in lines if not (line.isprintable() and line.startswith(str(file)))] == []
