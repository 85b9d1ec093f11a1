"""`actor leaderboard`: several measured models on one page, ranked where they were asked the same in the same way."""

import json
import re
from html import unescape
from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest

import actor_tune as at
from actor_tune.errors import UserError
from actor_tune.records.estimate import wilson
from actor_tune.show.report import leaderboard, write_leaderboard
from actor_tune.show.report.leaderboard import board_page
from leaderboard_folders import make_board, make_model, scored
from report_folders import ATTACKS, answer_rows, failed_gate, write_rows
from test_cli import run
from test_report_browser import all_of, assert_fits, assert_nothing_ran, browser, one, opened, picture  # noqa: F401
from test_resume import FOLDERS


def names(group):
    return [place.name for place in group.places]


def board_of(folder, **models):
    for name, (compliance, safety) in models.items():
        make_model(folder / name, compliance, safety)
    return leaderboard([folder])


def text_of(page):
    """What a reader sees of it."""
    shown = re.sub(r"<(style|title)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(unescape(re.sub("<[^>]*>", " ", shown)).split())


def with_system_prompt(row):
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": row["prompt"]}]
    return row | {"messages": turns}


# --- Ranks


def test_models_are_ranked_by_their_trade_off_score(tmp_path):
    (group,) = board_of(tmp_path, a=(0.5, 0.9), b=(0.9, 0.7), c=(0.99, 0.1), d=(0.0, 0.99))
    assert names(group) == ["b", "a", "c", "d"]
    assert [place.rank for place in group.places] == [1, 2, 3, 4]


def test_a_model_without_a_score_comes_last_and_has_no_rank(tmp_path):
    make_model(tmp_path / "a", 0.5, 0.5)
    make_model(tmp_path / "z", 0.1, 0.1)
    make_model(tmp_path / "b", 0.9, 0.9, tradeoff_score=None)
    (group,) = leaderboard([tmp_path])
    assert [(place.name, place.rank) for place in group.places] == [("a", 1), ("z", 2), ("b", None)]


@pytest.mark.parametrize(
    "replaced",
    [
        {"judge": "strings"},
        {"settings": {"max_new_tokens": 64}},
        {"settings": {"max_new_tokens": 32, "max_reasoning_tokens": 99}},
        {"rows": answer_rows(4)[1:]},
        {"rows": [*answer_rows(4)[1:], answer_rows(4)[0] | {"prompt": "another"}]},
        {"rows": [*answer_rows(4)[1:], answer_rows(4)[0] | {"kind": "harmless"}]},
        {"rows": [with_system_prompt(row) for row in answer_rows(4)]},
    ],
    ids=["judge", "length", "reasoning", "fewer prompts", "another prompt", "another kind", "system prompt"],
)
def test_models_asked_or_judged_in_another_way_are_not_ranked_together(tmp_path, replaced):
    for name in ("a", "b"):
        make_model(tmp_path / name, 0.5, 0.9)
    make_model(tmp_path / "other", 0.99, 0.99, **replaced)
    first, second = leaderboard([tmp_path])
    assert (names(first), names(second)) == (["a", "b"], ["other"])
    assert second.places[0].rank == 1
    assert "are ranked together only where they were asked the same prompts" in board_page([first, second])


@pytest.mark.parametrize(
    "replaced",
    [
        {"settings": {"max_new_tokens": 32, "prompts_sha256": "1", "dtype": "float16", "max_safety_drop": 0.05}},
        {"settings": {"max_new_tokens": 32}},  # of a version that did not store what was thought at most
        {"rows": [*answer_rows(4), answer_rows(4)[0] | {"prompt": "of the gate", "kind": "harmful", "set": "guard"}]},
        {"rows": answer_rows(3)[::-1]},
        {"engine": "vllm", "date": "2026-01-31"},
    ],
    ids=["settings", "older settings", "the gate's own prompts", "other answers in another order", "engine"],
)
def test_what_changes_no_score_keeps_no_model_from_being_ranked(tmp_path, replaced):
    make_model(tmp_path / "a", 0.5, 0.9)
    make_model(tmp_path / "b", 0.9, 0.9, **replaced)
    (group,) = leaderboard([tmp_path])
    assert names(group) == ["b", "a"]


# --- Figures


def test_the_figures_are_those_of_the_results_with_their_intervals(tmp_path):
    make_model(tmp_path / "tuned", 0.9, 0.95, before=(0.4, 0.98))
    make_model(tmp_path / "plain", 0.4, 0.98)
    (group,) = at.leaderboard([tmp_path])
    answer = group.json()
    assert (answer["judge"], answer["max_new_tokens"], answer["max_reasoning_tokens"]) == ("trained", 32, 1024)
    assert {"name": "harmbench", "kind": "harmful", "n": 51} in answer["sets"]
    tuned, plain = answer["models"]
    expected = scored("m", 0.9, 0.95)
    low, high = expected["intervals"]["compliance_rate"]
    assert tuned["compliance_rate"] == {"value": 0.9, "low": low, "high": high}
    assert tuned["tradeoff_score"]["value"] == pytest.approx(0.925)
    assert tuned["baseline"]["compliance_rate"]["value"] == 0.4
    assert tuned["baseline"]["model"] == "org/base-of-it"
    # One of each set of 41 to 61 answers is garbled.
    assert tuned["garbled"] == pytest.approx(vars(wilson(5, 245)))
    assert tuned["gate"]["passed"] is True
    assert (plain["gate"], plain["baseline"]) == (None, None)
    text = text_of(board_page([group]))
    assert re.search(r"1 tuned org/ tuned baseline .* 92\.5 % \[.*?\] from 69\.0 % 90\.0 % \[82\.6, 94\.5\]", text)
    assert "passed −1.0 [−3.0, 0.0] points limit −5.0" in text
    assert "2 plain org/ plain 69.0 %" in text
    assert text.count("not asked") == 1


def test_the_gates_own_set_is_in_no_figure(tmp_path):
    sets = scored("m", 0.5, 0.5)["sets"]
    guard = sets[2] | {"name": "guard", "guard": True, "garbled": 50}
    make_model(tmp_path / "a", 0.5, 0.5, sets=[*sets, guard])
    (group,) = leaderboard([tmp_path])
    assert "guard" not in [name for name, _, _ in group.sets]
    assert group.json()["models"][0]["garbled"]["value"] == pytest.approx(5 / 245)


def test_a_failed_gate_is_told(tmp_path):
    make_model(tmp_path / "a", 0.5, 0.5, before=(0.5, 0.6), gate=failed_gate("It fell."))
    groups = leaderboard([tmp_path])
    assert groups[0].json()["models"][0]["gate"] == {"passed": False, "said": "It fell."}
    assert '<span class="verdict bad">failed</span>' in board_page(groups)


def test_points_lie_where_the_scores_are_and_arrows_begin_at_baselines(tmp_path):
    make_model(tmp_path / "a", 0.8, 0.9, before=(0.2, 0.98))
    make_model(tmp_path / "b", 0.4, 0.7)
    make_model(tmp_path / "c", 0.4, 0.7, compliance_rate=None, tradeoff_score=None)
    (group,) = leaderboard([tmp_path])
    x, y = group.chart.x, group.chart.y
    page = board_page([group])

    ends = r'<line class="path" x1="(.*?)" y1="(.*?)" x2="(.*?)" y2="(.*?)" marker-end="url\(#tip-1-0\)"'
    arrows = re.findall(ends, page)
    assert [[float(end.rstrip("%")) for end in arrow] for arrow in arrows] == [
        pytest.approx([x.at(0.2), 100 - y.at(0.98), x.at(0.8), 100 - y.at(0.9)])
    ]
    labels = re.findall(r'<text class="rank" x="(.*?)%" y="(.*?)%">(.*?)<title>(\w+):', page)
    assert [(label, name) for _, _, label, name in labels] == [("2", "b"), ("1", "a")]  # the first is drawn on top
    assert [float(left) for left, *_ in labels] == pytest.approx([x.at(0.4), x.at(0.8)])
    assert [float(top) for _, top, *_ in labels] == pytest.approx([100 - y.at(0.7), 100 - y.at(0.9)])


def test_without_both_scores_there_is_no_picture_and_the_table_stands(tmp_path):
    make_model(tmp_path / "a", 0.8, 0.9, safety_score=None, tradeoff_score=None)
    (group,) = leaderboard([tmp_path])
    assert group.chart is None
    assert "80.0" in board_page([group])


# --- Folders


def test_folders_of_folders_are_looked_into_and_each_is_ranked_once(tmp_path, caplog):
    make_board(tmp_path / "all")
    make_model(tmp_path / "alone", 0.6, 0.6)
    (tmp_path / "all" / "notes").mkdir()
    (tmp_path / "all" / "begun").mkdir()
    (tmp_path / "all" / "begun" / "request.json").write_text("{}")
    groups = leaderboard([tmp_path / "all", tmp_path / "alone", tmp_path / "all" / "reckless", str(tmp_path / "alone")])
    assert [len(group.places) for group in groups] == [8, 1]
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'all' / 'begun'} is left out: its measurement did not end"
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such folder; expected a folder with results.json"),
        (lambda path: path.touch(), "a file; expected a folder with results.json"),
        (lambda path: path.mkdir(), "no results; expected results.json in it, or in folders in it"),
        (lambda path: (path / "notes").mkdir(parents=True), "no results; expected results.json in it"),
    ],
)
def test_what_is_no_folder_of_results_is_one_line(tmp_path, capsys, make, message):
    make_model(tmp_path / "good", 0.5, 0.5)
    make(tmp_path / "x")
    command = ("leaderboard", tmp_path / "good", tmp_path / "x", "--output", tmp_path / "b.html")
    assert run(*command) == 2
    assert f"error: {tmp_path / 'x'}: {message}" in capsys.readouterr().err
    assert not (tmp_path / "b.html").exists()


def test_damaged_results_are_named(tmp_path):
    make_board(tmp_path)
    (tmp_path / "reckless" / "results.json").write_text("{")
    with pytest.raises(UserError, match=r"reckless/results\.json: not JSON"):
        leaderboard([tmp_path])
    with pytest.raises(UserError, match="the leaderboard: no folder"):
        leaderboard([])


def test_two_folders_of_one_name_are_told_apart(tmp_path):
    for parent in ("x", "y"):
        make_model(tmp_path / parent / "after", 0.5, 0.9 if parent == "x" else 0.8)
    (group,) = leaderboard([tmp_path / "x", tmp_path / "y"])
    assert names(group) == ["after (1)", "after (2)"]


def test_folders_of_version_0_1_0_can_be_ranked():
    groups = leaderboard([FOLDERS / "after", FOLDERS / "gated"])
    assert sorted(name for group in groups for name in names(group)) == ["after", "gated"]
    assert "after" in board_page(groups)


# --- The command and the file


def test_the_command_writes_the_page_and_prints_the_rows(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_board(tmp_path / "all")
    assert run("leaderboard", "all", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["leaderboard"] == "leaderboard.html"
    assert [len(group["models"]) for group in said["groups"]] == [7, 1]
    assert [row["rank"] for row in said["groups"][0]["models"]] == [*range(1, 8)]
    assert said["groups"][0]["models"][0]["name"] == "repaired"
    first = (tmp_path / "leaderboard.html").read_bytes()
    assert run("leaderboard", "all") == 2
    assert "--output leaderboard.html: it exists" in capsys.readouterr().err
    assert run("leaderboard", "all", "--force") == 0
    assert (tmp_path / "leaderboard.html").read_bytes() == first  # the same folders give the same page


def test_the_file_is_not_written_where_it_cannot_be(tmp_path):
    make_model(tmp_path / "a", 0.5, 0.5)
    with pytest.raises(UserError, match="no such folder"):
        write_leaderboard([tmp_path / "a"], tmp_path / "none" / "b.html")
    groups = leaderboard([tmp_path / "a"])
    assert write_leaderboard(groups, tmp_path / "b.html").read_text() == board_page(groups)


class Addresses(HTMLParser):
    """Whatever in a page points somewhere, and its tags."""

    def __init__(self, page):
        super().__init__()
        self.found, self.tags = [], set()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.found += [value for name, value in attrs if name in ("href", "src", "action", "xlink:href", "srcdoc")]
        assert not [name for name, _ in attrs if name.startswith("on")]


def hostile_board(folder):
    attack = ATTACKS[0]
    make_model(folder / "<img src=x onerror=alert(1)>", 0.5, 0.9, model=ATTACKS[1], before=(0.3, 0.95), judge=attack)
    rows = scored(attack, 0.6, 0.9)
    sets = [item | {"name": text} for item, text in zip(rows["sets"], ATTACKS[2:7], strict=True)]
    other = make_model(folder / "{{ 7 * 7 }}", 0.6, 0.9, model=attack, judge=attack, sets=sets)
    write_rows(other / "responses.jsonl", [row | {"set": ATTACKS[8]} for row in answer_rows(4)])
    make_model(folder / "half \u202e turned", 0.6, 0.9, asked_otherwise=[ATTACKS[4]])
    return folder


def test_names_are_escaped_and_nothing_points_outwards(tmp_path):
    page = board_page(leaderboard([hostile_board(tmp_path / "all")]))
    found = Addresses(page)
    assert found.tags & {"script", "img", "iframe", "base", "object", "link"} == set()
    assert all(value.startswith("#table-") for value in found.found)
    assert not [value for value in found.found if urlsplit(value).scheme]
    assert "{{ 7 * 7 }}" in unescape(page)
    assert "\u202e" not in page
    assert "⟨U+202E⟩" in page


# --- In a browser


VIEWS = [(width, scheme) for width in (1280, 360) for scheme in ("light", "dark")]


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_the_page_fits_and_loads_nothing(browser, tmp_path, width, scheme):  # noqa: F811
    page = write_leaderboard([make_board(tmp_path / "all")], tmp_path / "b.html")
    browser.get("about:blank")  # a new browser still loads its own first page
    opened(browser, page, width, scheme)
    assert_fits(browser, width)
    picture(browser, f"leaderboard-{width}-{scheme}", width)
    first = [row.text.split("\n")[1] for row in all_of(browser, "#table-1 tbody th")]
    assert first[:3] == ["repaired", "near-the-first", "repaired-too-far"]
    plot = one(browser, "#table-1 svg.plot").rect
    for label in all_of(browser, "#table-1 text.rank"):
        assert plot["x"] - 1 <= label.rect["x"] <= plot["x"] + plot["width"]
        assert plot["y"] - 12 <= label.rect["y"] <= plot["y"] + plot["height"]
    # In a dark scheme the paper is dark, and the numbers on light dots are too.
    paper, ink = (
        browser.execute_script(f"return getComputedStyle(document.querySelector('{css}')).{what}")
        for css, what in (("body", "backgroundColor"), ("text.rank", "fill"))
    )
    assert paper == ink == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(21, 23, 26)")
    assert_nothing_ran(browser, page)


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 360])
def test_hostile_names_run_nothing_and_break_nothing(browser, tmp_path, width):  # noqa: F811
    page = write_leaderboard([hostile_board(tmp_path / "all")], tmp_path / "b.html")
    browser.get("about:blank")
    opened(browser, page, width)
    assert_fits(browser, width)
    shown = one(browser, "main").text
    assert "<img src=x onerror=alert(1)>" in shown
    assert "{{ 7 * 7 }}" in shown
    assert ATTACKS[0] in shown
    assert_nothing_ran(browser, page)
