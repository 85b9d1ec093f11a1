import re

import pytest

from actor_tune.errors import UserError
from actor_tune.storage.tables import read_lines, read_table


def test_rows_know_where_they_stand(tmp_path):
    (tmp_path / "a.csv").write_text('a,b\n"x\ny",1\nz,2\n')
    first, second = read_table(tmp_path / "a.csv")
    assert first.cells == {"a": "x\ny", "b": "1"}
    assert second.where == f"{tmp_path / 'a.csv'}, row 4"


def test_a_first_line_of_excels_that_names_the_separator_is_no_header_and_counts_as_a_line(tmp_path):
    (tmp_path / "a.csv").write_text("sep=;\r\na;b\r\nx, y;1\r\n")
    (row,) = read_table(tmp_path / "a.csv")
    assert (row.cells, row.where) == ({"a": "x, y", "b": "1"}, f"{tmp_path / 'a.csv'}, row 3")
    (tmp_path / "a.csv").write_text("sep=;\na;b,c\nx;1\n")
    with pytest.raises(UserError, match="line 2: commas and semicolons between"):
        read_table(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("sep=;\na;b\nx;1;2\n")
    with pytest.raises(UserError, match="line 3: more or fewer fields"):
        read_table(tmp_path / "a.csv")


def test_a_cell_is_read_as_text_or_said_to_be_missing(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": " x ", "b": 3, "c": " "}\n')
    (row,) = read_table(tmp_path / "a.jsonl")
    assert row.text("a") == "x"
    for column, message in (
        ("b", "`b` is 3; expected a string"),
        ("c", "an empty c"),
        ("d", "no column `d` (columns: a, b, c)"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            row.text(column)


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("1" * 5000, "a number of too many digits"),
        ("[" * 100_000, "nested too deeply"),
        ("[", "not JSON (Expecting value)"),
    ],
)
def test_a_line_that_python_cannot_read_is_told_and_no_crash(tmp_path, cell, said):
    (tmp_path / "a.jsonl").write_text(f'{{"a": 1}}\n{{"a": {cell}}}\n')
    with pytest.raises(UserError, match=re.escape(f"a.jsonl, line 2: {said}; expected an object")):
        read_table(tmp_path / "a.jsonl")


def test_cells_of_a_megabyte_are_read(tmp_path):
    (tmp_path / "a.csv").write_text(f"a\n{'x' * 1_000_000}\n")
    assert len(read_table(tmp_path / "a.csv")[0].cells["a"]) == 1_000_000


def test_blank_lines_of_a_text_are_skipped_and_a_text_of_them_alone_is_empty(tmp_path):
    (tmp_path / "a.txt").write_text(" x \n\n y\n")
    rows = read_lines(tmp_path / "a.txt", "entry")
    assert [(row.number, row.text("entry")) for row in rows] == [(1, "x"), (3, "y")]
    (tmp_path / "b.txt").write_text("\n \n")
    with pytest.raises(UserError, match="the file is empty"):
        read_lines(tmp_path / "b.txt", "entry")


def test_bytes_that_are_not_utf8_and_folders_are_named(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"a\n\xff\n")
    with pytest.raises(UserError, match="not UTF-8 at byte 2"):
        read_table(tmp_path / "a.csv")
    (tmp_path / "b.csv").mkdir()
    with pytest.raises(UserError, match=r"b.csv: a folder; expected a file"):
        read_table(tmp_path / "b.csv")
