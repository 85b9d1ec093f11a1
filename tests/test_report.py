import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from actor_tune.commands.report import report
from actor_tune.errors import UserError
from actor_tune.records.response import Pair, ResponseRow
from actor_tune.records.run import PromptPath
from actor_tune.show.report import render, write_report
from actor_tune.show.report.charts import density, path_charts, scale
from actor_tune.show.report.load import load
from actor_tune.show.report.page import visible
from actor_tune.show.report.sets import set_rows
from actor_tune.show.report.words import numbers
from report_folders import (
    ATTACKS,
    answer_rows,
    failed_gate,
    hostile_rows,
    make_results,
    make_run,
    measured,
    results_json,
    set_rate,
    write_rows,
)


class Elements(HTMLParser):
    """Every element of a page with its attributes, and the texts of the inline blocks."""

    def __init__(self, page):
        super().__init__()
        self.found, self.blocks, self.within = [], [], None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.within = tag
        if tag in ("script", "style"):
            self.blocks.append((tag, dict(attrs).get("type"), ""))

    def handle_endtag(self, tag):
        self.within = None

    def handle_data(self, data):
        if self.within in ("script", "style"):
            tag, kind, text = self.blocks[-1]
            self.blocks[-1] = (tag, kind, text + data)


def page_of(tmp_path, *folders):
    output = tmp_path / "report.html"
    write_report(folders, output)
    return output.read_text(encoding="utf-8")


def words_of(page):
    """The page's text without its script, style and data, in one line."""
    bare = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.DOTALL).replace("<wbr>", "")
    return " ".join(re.sub(r"<[^>]*>", " ", bare).replace("&nbsp;", " ").replace("\xa0", " ").split())


def test_a_process_without_torch_writes_the_same_bytes_from_the_same_folders(tmp_path):
    folders = [make_run(tmp_path / "run"), make_results(tmp_path / "after")]
    write_report(folders, tmp_path / "one.html")
    code = (
        "import sys; from pathlib import Path; from actor_tune.show.report import write_report; "
        "write_report([Path(a) for a in sys.argv[1:3]], Path(sys.argv[3])); "
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, *map(str, folders), str(tmp_path / "two.html")]
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "[]\n"
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
    assert render(folders).encode() == (tmp_path / "one.html").read_bytes()


def in_order(text, parts):
    return [text.index(part) for part in parts] == sorted(text.index(part) for part in parts)


def test_the_page_opens_with_two_numbers_then_the_gate_then_one_answer_then_the_rest(tmp_path):
    text = words_of(page_of(tmp_path, make_results(tmp_path / "after")))
    benign = (
        "Benign prompts answered 30.0 % → 82.5 % 95 % interval [22.0, 39.0] → [74.0, 89.0] "
        "Over-refusal fell. The change is +52.5 points (95 % interval +43.0 to +62.0). "
        "Rests on this measurement: n = 100 in 2 sets, each counting the same."
    )
    harmful = (
        "Harmful prompts refused 99.0 % → 98.0 % 95 % interval [95.0, 100.0] → [93.0, 100.0] No clear change in safety"
    )
    order = [benign, harmful, "Safety gate passed", "One answer, before and after", "Trade-off score"]
    assert in_order(text, order)
    assert "a fall of up to 3.0 points cannot be excluded" in text
    assert "The safety gate below" not in text


def test_each_verdict_says_what_it_rests_on(tmp_path):
    guard = [{"prompt": f"p{n}", "set": "held", "before": "No.", "after": "No."} for n in range(304)]
    verdicts = {"verdict_before": "refusal", "verdict_after": "refusal"}
    gate = failed_gate("") | {"passed": True, "n": 304, "sentence": "Safety gate passed: of 304."}
    run = make_run(tmp_path / "run", gate=gate)
    write_rows(run / "guard.jsonl", [row | verdicts for row in guard])
    own = failed_gate("Safety gate failed: of 16.") | {"n": 16}
    text = words_of(page_of(tmp_path, run, make_results(tmp_path / "after", gate=own)))
    failed = "Safety gate failed after Of 16. "
    passed = (
        "Safety gate passed run Of 304. Harmful set, worst first n Refused before After Change, points held 304 100.0 %"
    )
    assert in_order(
        text, [failed, "Rests on answers to the 16 harmful prompts of this measurement, all counted", passed]
    )
    assert "The safety gate below, with 304 prompts, decides." in text
    assert text.index(passed) < text.index(
        "Rests on answers to 304 held-out harmful prompts that the fit asked itself."
    )


def test_a_set_of_the_gate_of_a_fit_has_the_interval_that_the_gate_found(tmp_path):
    counts = {"n": 4, "refused_before": 4, "refused_after": 3, "lost": 1, "gained": 0}
    change = {"difference": -0.25, "low": -0.701, "high": 0.2998, "mcnemar_p": 1.0}
    twins = {"name": "twins", "kind": "harmful"} | counts | change
    run = make_run(tmp_path / "run", gate=failed_gate("") | {"sets": [twins]})
    after = ["compliance", "refusal", "refusal", "refusal"]
    rows = [{"prompt": f"p{n}", "set": "twins", "before": "a", "after": "b"} for n in range(4)]
    said = [row | {"verdict_before": "refusal", "verdict_after": now} for row, now in zip(rows, after, strict=True)]
    write_rows(run / "guard.jsonl", said)
    assert "25.0 [\u221270.1, +30.0]" in words_of(page_of(tmp_path, run)).replace("\N{NO-BREAK SPACE}", " ")


def test_a_refusal_that_can_no_longer_be_scored_counts_in_a_measurements_gate_and_is_shown(tmp_path):
    change = {"difference": -0.5, "low": -0.67, "high": -0.33, "mcnemar_p": 0.0}
    talks = {"name": "talks", "kind": "harmful", "n": 60, "refused_before": 60, "refused_after": 30} | change
    gate = failed_gate("Safety gate failed: so.") | {"sets": [talks | {"lost": 30, "gained": 0}]}
    text = words_of(page_of(tmp_path, make_results(tmp_path / "after", gate=gate))).replace("\N{MINUS SIGN}", "-")
    assert "talks 60 100.0 %" in text
    assert "50.0 % [37.7, 62.3] -50.0 [-67.0, -33.0]" in text
    assert "Set by set, refusal fell by more than 5.0 points (95 % intervals in brackets): talks, by 50.0" in text
    was, now = (
        ResponseRow(prompt="p", kind="harmful", set="s", response="", verdict=v) for v in ("refusal", "unscored")
    )
    assert (Pair(was, now).flipped, Pair(now, now).flipped, Pair(None, now).flipped) == ("unscored", "", "")


def test_a_gate_that_was_not_asked_is_said_once(tmp_path):
    folders = [make_run(tmp_path / "run"), make_results(tmp_path / "after", gate=None)]
    assert words_of(page_of(tmp_path, *folders)).count("Safety gate not asked") == 1


def test_a_fit_alone_opens_with_its_own_judged_answers_and_not_with_first_tokens(tmp_path):
    trial = json.loads((make_run(tmp_path / "plain") / "run.json").read_text())["trials"]
    rate = {"name": "compliance", "n": 48, "before": 0.25, "after": 0.75, "rise": 0.5, "error": 0.05}
    trial[2]["answers"] = [rate, rate | {"name": "safety", "before": 1.0, "after": 1.0, "rise": 0.0, "error": 0.0}]
    gate = failed_gate("Safety gate failed: so.") | {"drop": 0.5, "low": 0.2, "high": 0.75}
    run = make_run(tmp_path / "run", trials=trial, gate=gate)
    guard = [
        {"prompt": f"p{n}", "set": "held", "before": "", "after": ""}
        | {"verdict_before": "unscored", "verdict_after": "unscored" if n < 2 else "refusal"}
        for n in range(4)
    ]
    write_rows(run / "guard.jsonl", guard)
    text = words_of(page_of(tmp_path, run))
    assert in_order(text, ["Benign prompts answered 25.0 % → 75.0 %", "+50.0 points (95 % interval +30.5 to +64.3)"])
    assert "on which the strength was chosen: n = 48" in text
    # As the gate counts: what could not be scored was refused before, and is not now.
    assert "Harmful prompts refused 100.0 % → 50.0 % 95 % interval [51.0, 100.0] → [15.0, 85.0] Safety fell." in text
    assert "The change is −50.0 points (95 % interval −75.0 to −20.0)." in text
    assert "the gate of the fit: n = 4 held-out prompts" in text


def test_the_answer_shown_is_of_median_length_whatever_the_order_of_the_rows(tmp_path):
    def row(number, verdict, text):
        prompt = {"prompt": f"p{number}", "kind": "pseudo_harmful", "set": "s", "response": text, "verdict": verdict}
        return prompt | {"score": 0.5, "reason": ""}

    after = [row(n, "compliance", "word " * n) for n in (9, 1, 5, 3, 7)] + [row(20, "refusal", "a")]
    before = [row(n, "refusal", "no") for n in (1, 3, 5, 7, 9)] + [row(20, "compliance", "a")]
    for name, order in (("a", 1), ("b", -1)):
        text = words_of(page_of(tmp_path / name, make_results(tmp_path / name / "x", after[::order], before[::order])))
        shown = text[text.index("One answer") : text.index("Trade-off")]
        assert "p5 before refusal no after compliance word word word word word" in shown
        assert (
            "Of 6 benign prompts that look harmful, 5 were refused and are answered now, and 1 the other way" in shown
        )


def test_no_chart_has_first_tokens_and_judged_answers_and_one_measurement_has_no_frontier(tmp_path):
    page = page_of(tmp_path, make_run(tmp_path / "run"), make_results(tmp_path / "after"))
    assert 'id="frontier"' not in page
    (tmp_path / "report.html").unlink()
    page = page_of(tmp_path, make_run(tmp_path / "run2"), make_results(tmp_path / "a"), make_results(tmp_path / "b"))
    charts = re.findall(r'<svg class="plot tall".*?</svg>', page, flags=re.DOTALL)
    kinds = ["trial" if '<circle class="trial' in chart else "judged" for chart in charts]
    assert kinds == ["judged", "trial"]
    assert '<circle class="trial' not in charts[0]
    assert '<circle class="dot' not in charts[1]


def test_sets_stand_worst_first_and_the_worst_harmful_one_beside_the_number(tmp_path):
    sets = [set_rate(name, "harmful", 100, refused) for name, refused in (("a_b", 97), ("c", 70), ("d", 90))]
    before = measured("testbed", 3) | {"sets": [row | {"refusal_rate": 0.95} for row in sets]}
    comparison = results_json()["comparison"] | {
        "sets": [
            {"name": name, "kind": "harmful", "n": 100, "refused_before": 95, "refused_after": after, "lost": 0}
            | {"gained": 0, "difference": (after - 95) / 100, "low": -0.3, "high": 0.1, "mcnemar_p": 0.5}
            for name, after in (("a_b", 97), ("c", 70), ("d", 90))
        ]
    }
    folder = make_results(tmp_path / "after", sets=sets, baseline=before, comparison=comparison)
    (item,), _ = load([folder])
    assert [row.now.name for row in set_rows(item.results)] == ["c", "d", "a_b"]
    page = page_of(tmp_path, folder)
    assert "The worst set is c: 95.0 % → 70.0 %, −25.0 points [−30.0, +10.0]." in words_of(page)
    assert "a_<wbr>b" in page
    assert "a_b<" not in page


def test_strengths_are_shown_by_set_with_the_limits_that_were_applied(tmp_path):
    run = json.loads((make_run(tmp_path / "plain") / "run.json").read_text())
    sets = [
        {"name": name, "kind": "harmful", "refusal": 0.5, "drop": drop, "drop_error": 0.03}
        for name, drop in (("held", -0.1), ("fell", 0.08))
    ]
    run["trials"][2] |= {"sets": sets, "kl_harmless": 0.102, "kl_error": 0.004}
    limits = {"safety_drop": 0.02, "set_drop": 0.06, "kl_harmless": 0.1, "garbled_rise": "<b>"}
    text = words_of(page_of(tmp_path, make_run(tmp_path / "run", trials=run["trials"], settings={"limits": limits})))
    assert "0.8 kept 78.0 % 98.0 % −1.0; limit −2.0 0.102 limit 0.100 + 0.004" in text
    rows = text[text.index("Strengths by set") :]
    assert in_order(rows, ["fell harmful – – 50.0 % −8.0 ± 5.9 – −6.0 − 3.0", "held harmful – – 50.0 % +10.0 ± 5.9"])


def test_the_judges_errors_stand_beside_what_labels_correct(tmp_path):
    errors = {"refused": 20, "missed": 3, "answered": 40, "false_alarms": 1}
    after = measured("m", 4) | {"labelled": {"safety_score": {"value": 0.9, "low": 0.8, "high": 0.95, "labels": 30}}}
    count = {"used": 60, "cannot_say": 0, "unmatched": 0, "errors": errors}
    text = words_of(page_of(tmp_path, make_results(tmp_path / "after", labels=count, **after)))
    order = [
        "Corrected by 30 labels: 90.0 % [80.0, 95.0].",
        "it took 3 of 20 refusals for answers, and 1 of 40 answers",
    ]
    assert in_order(text, [*order, "Safety gate passed"])


def test_dates_are_said_where_they_were_stored(tmp_path):
    assert "Measured 20" not in words_of(page_of(tmp_path, make_results(tmp_path / "old")))
    (tmp_path / "report.html").unlink()
    folders = [make_run(tmp_path / "run", date="2026-01-30"), make_results(tmp_path / "new", date="2026-01-31")]
    assert "Fitted 2026-01-30. Measured 2026-01-31." in words_of(page_of(tmp_path, *folders))


def test_headings_are_in_order(tmp_path):
    for name, folders in (("one", ["x"]), ("two", ["x", "y"])):
        made = [make_results(tmp_path / name / folder) for folder in folders]
        made += [make_run(tmp_path / name / "run")]
        found = [
            int(tag[1]) for tag, _ in Elements(page_of(tmp_path / name, *made)).found if re.fullmatch("h[1-6]", tag)
        ]
        assert found[0] == 1
        assert all(after <= before + 1 for before, after in pairwise(found))


@pytest.mark.parametrize(
    ("low", "high", "gist", "tone"),
    [
        (-0.2, -0.01, "Safety fell", "bad"),
        (-0.2, 0.01, "No clear change in safety", "plain"),
        (0.01, 0.2, "Safety rose", "good"),
    ],
)
def test_safety_is_said_to_move_only_where_the_interval_excludes_no_change(tmp_path, low, high, gist, tone):
    comparison = {"sets": [], "safety_score": {"difference": (low + high) / 2, "low": low, "high": high}}
    folders, _ = load([make_results(tmp_path / "after", comparison=comparison)])
    safety = numbers(folders[0].results)[1]
    assert (safety.gist, safety.tone) == (gist, tone)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-0.1936, 0.1936, "a fall of up to 19.4 points cannot be excluded."),
        (-0.03, 0.0, "a fall of up to 3.0 points cannot be excluded."),
        (-0.0004, 0.5, "a fall of less than 0.1 points cannot be excluded."),
        (0.0, 0.625, "no fall lies in the interval, but no change at all cannot be excluded."),
    ],
)
def test_what_cannot_be_excluded_is_what_lies_in_the_interval(tmp_path, low, high, said):
    comparison = {"sets": [], "safety_score": {"difference": (low + high) / 2, "low": low, "high": high}}
    folders, _ = load([make_results(tmp_path / "after", comparison=comparison)])
    assert numbers(folders[0].results)[1].change.endswith(said)


def test_what_an_older_version_stored_of_sixteen_prompts_without_a_flip_does_not_read_as_certainty(tmp_path):
    item = {"name": "h", "kind": "harmful", "n": 16, "refused_before": 16, "refused_after": 16, "lost": 0, "gained": 0}
    item |= {"difference": 0.0, "low": 0.0, "high": 0.0, "mcnemar_p": 1.0}
    comparison = {"sets": [item], "safety_score": {"difference": 0.0, "low": 0.0, "high": 0.0}}
    text = words_of(page_of(tmp_path, make_results(tmp_path / "after", comparison=comparison)))
    assert "The change is 0.0 points; how sure that is was not stored: measure again." in text
    assert "[0.0, 0.0]" not in text


def test_a_failed_run_is_said_first_and_a_failed_gate_before_one_that_passed(tmp_path):
    folders = [
        make_results(tmp_path / "passed"),
        make_results(tmp_path / "blocked", gate=failed_gate("GATE SENTENCE")),
        make_run(tmp_path / "run", failure="FAILURE SENTENCE", written=False),
    ]
    text = words_of(page_of(tmp_path, *folders))
    order = ["Over-refusal fell", "no model was written", "FAILURE SENTENCE", "GATE SENTENCE", "Safety gate passed"]
    assert in_order(text, order)


def test_planted_figures_stand_in_the_tables(tmp_path):
    text = words_of(page_of(tmp_path, make_run(tmp_path / "run"), make_results(tmp_path / "after")))
    row = "xstest_safe pseudo-harmful 60 75.0 % [62.8, 84.2] 15.0 % [8.1, 26.1] −60.0 [−70.0, −51.0] 36 / 0 < 0.001"
    assert row in text.replace("&lt;", "<")
    assert "77.0 % [62.8, 86.2] 17.0 %" in text  # corrected, beside the judge's
    assert "Labels used: 60, of which 2 cannot say; 1 belong" in text
    assert "Perplexity on plain text 24.10 24.60" in text
    assert "KL on harmless prompts, several tokens – 0.061 nats" in text
    assert "0.8 kept 78.0 % 98.0 % −1.0; limit −2.0 0.030" in text
    assert "actor measure run/model --baseline testbed --max-safety-drop 0.05" in text
    assert "limits.margin 0.05" in text


def test_what_is_not_in_the_folders_leaves_no_heading(tmp_path):
    headings = ["Damage", "Leaked prompts", "Where prompts lie", "Why block", "Strengths"]
    headings.append("block by block")
    whole = words_of(page_of(tmp_path, make_run(tmp_path / "run"), make_results(tmp_path / "after")))
    assert all(heading in whole for heading in headings)
    bare = {"schema": 1, "model": "m", "judge": "opening phrases", "sets": [set_rate("s", "harmful", 10, 9)]}
    old = make_results(tmp_path / "old", before=[])
    scores = {"safety_score": 0.9, "compliance_rate": None, "intervals": {"safety_score": [0.8, 1.0]}}
    (old / "results.json").write_text(json.dumps(bare | scores))
    (old / "baseline.jsonl").unlink()
    write_report([old], tmp_path / "old.html")
    text = words_of((tmp_path / "old.html").read_text())
    assert not [heading for heading in headings if heading in text]
    assert "Harmful prompts refused 90.0 % 95 % interval [80.0, 100.0] Rests on this measurement: n = 10." in text
    run_folder = make_run(tmp_path / "plain", scan=None, trials=[])
    (run_folder / "positions.json").unlink()
    (run_folder / "paths.json").unlink()
    write_report([run_folder], tmp_path / "plain.html")
    text = words_of((tmp_path / "plain.html").read_text())
    assert not [heading for heading in headings if heading in text]


def test_a_prompt_of_each_kind_is_followed_block_by_block_and_a_harmful_one_is_veiled(tmp_path):
    page = page_of(tmp_path, make_run(tmp_path / "run"))
    places = [page.index(f"the path of a {kind} prompt") for kind in ("pseudo_harmful", "harmful", "harmless")]
    assert places == sorted(places)
    assert page[: places[1]].rindex('<div class="veil" inert>') > places[0]
    chart = path_charts([PromptPath(**json.loads((tmp_path / "run" / "paths.json").read_text())[0])])[0]
    position, chance = chart.courses
    # Three blocks: at 0, half and the whole width; upwards is less in a picture.
    heights = [f"{100 - position.axis.at(value):.2f}" for value in (0.2, 0.9, 0.1)]
    assert position.after == "M0.00,{}L50.00,{}L100.00,{}".format(*heights)
    # A chance of nothing or of one is drawn at the end of the axis; one half has log-odds 0.
    assert [point.split(",")[1] for point in chance.before.split("L")][::2] == ["100.00", "0.00"]
    assert chance.after.endswith(f",{100 - chance.axis.at(0.0):.2f}")


def test_only_our_own_script_and_style_may_run_and_hostile_text_makes_no_element(tmp_path):
    hostile = {"model": ATTACKS[0], "command": ATTACKS[2], "settings": {ATTACKS[1]: ATTACKS[2]}}
    leaked = [{"prompt": attack, "set": attack, "like": attack, "similarity": 1} for attack in ATTACKS]
    sets = [set_rate(attack, "harmful", 10, 9) for attack in ATTACKS]
    folders = [
        make_results(
            tmp_path / "<b>after", rows=hostile_rows(), before=hostile_rows(), sets=sets, leaked=leaked, **hostile
        ),
        make_run(tmp_path / "run", warnings=ATTACKS, failure=ATTACKS[0], gate=failed_gate(ATTACKS[0]), date=ATTACKS[0]),
    ]
    guard = {"prompt": "p", "before": ATTACKS[0], "after": ATTACKS[8], "verdict_before": "refusal"}
    write_rows(folders[1] / "guard.jsonl", [guard | {"set": ATTACKS[0], "verdict_after": "compliance"}])
    plain = Elements(page_of(tmp_path, make_results(tmp_path / "plain"), make_run(tmp_path / "plain run")))
    (tmp_path / "report.html").unlink()
    page = page_of(tmp_path, *folders)
    elements = Elements(page)
    assert {tag for tag, _ in elements.found} == {tag for tag, _ in plain.found}
    assert [tag for tag, attributes in elements.found if any(name.startswith("on") for name in attributes)] == []
    assert all(attributes["href"].startswith("#") for tag, attributes in elements.found if tag == "a")
    assert [name for _, attributes in elements.found for name in attributes if name in ("src", "srcdoc", "style")] == []
    assert visible(page) == page
    policy = next(a["content"] for tag, a in elements.found if tag == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert "base-uri 'none'; form-action 'none'" in policy
    for tag, kind, text in elements.blocks:
        if kind is None:
            assert f"{tag}-src 'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in policy
        else:
            assert kind == "application/json"
            assert not re.search("[<>&]|[^\x00-\x7f]", text)
            for row in json.loads(text):
                row.pop("row", None)  # as it is, for the file of labels; what is shown stands beside
                assert not re.search(r"\\u(00[01]|202|d800)", json.dumps(row))  # hidden characters are named


def test_what_newer_folders_hold_is_shown_too(tmp_path):
    unscored = {"refusal_rate": None, "low": None, "high": None, "labelled": None, "n": 0, "refused": 0}
    sets = [*results_json()["sets"], set_rate("guard", "harmful", 10, 9) | {"guard": True}]
    sets.append(set_rate("silent", "harmless", 10, 9) | unscored)
    folder = make_results(
        tmp_path / "after",
        sets=sets,
        damage={"perplexity": 24.6, "perplexity_baseline": 23.9},
        agreement=[
            {"judge_a": "trained", "judge_b": "wildguard", "n": 240}
            | {"kappa": 0.874, "kappa_classes": 0.8, "table": [[90, 0, 5], [0, 0, 0], [10, 0, 135]]}
        ],
        benchmarks={"run/model": {"mmlu": {"acc,none": 0.281}}, "testbed": {"mmlu": {"acc,none": 0.284}}},
    )
    guarded = {"prompt": "p", "set": "guard", "before": "No.", "after": "Sure."}
    verdicts = {"verdict_before": "refusal", "verdict_after": "compliance"}
    run_folder = make_run(tmp_path / "run", gate=failed_gate("RUN GATE"))
    write_rows(run_folder / "guard.jsonl", [guarded | verdicts])
    text = words_of(page_of(tmp_path, run_folder, folder))
    assert "guard harmful, gate only 10" in text
    assert "silent harmless 0 – –" in text
    assert "Perplexity on plain text 23.90 24.60" in text
    assert "trained and wildguard, on 240 answers: Cohen's kappa 0.87" in text.replace("&#39;", "'")
    assert "mmlu acc,none 0.284 0.281" in text
    assert "Answers of the gate" in text
    assert "RUN GATE" in text


def test_characters_that_hide_or_turn_text_are_named_and_others_are_left():
    assert visible("a\u202eb\x1b\u2028\ud800\U000e0041") == "a⟨U+202E⟩b⟨U+001B⟩⟨U+2028⟩⟨U+D800⟩⟨U+E0041⟩"
    plain = "tab\tline\nfamily 👩\u200d👧 नमस्ते שלום"
    assert visible(plain) == plain


def test_answers_are_paired_by_prompt_and_not_by_place(tmp_path):
    rows, before = answer_rows(4), answer_rows(3)
    folder = make_results(tmp_path / "after", rows=rows, before=[{**before[0], "prompt": "of nobody"}, *before[::-1]])
    folders, _ = load([folder])
    flips = [pair.flipped for pair in folders[0].answers if pair.after.set == "xstest_safe"]
    assert flips == [""] * 9 + ["answered"] * 36 + [""] * 15
    assert folders[0].unmatched == 1
    assert "that belong to no prompt here, and are left out: 1." in words_of(page_of(tmp_path, folder))


def test_folders_of_the_same_name_are_numbered(tmp_path):
    results, fits = load([make_results(tmp_path / "a" / "x"), make_run(tmp_path / "b" / "x"), make_run(tmp_path / "y")])
    assert [item.name for item in (*results, *fits)] == ["x (1)", "x (2)", "y"]


def damage_nothing_there(folder):
    for file in folder.iterdir():
        file.unlink()


def damage_cut_short(folder):
    (folder / "results.json").write_text('{"schema": 2, "sets": [')


def damage_no_answers(folder):
    (folder / "responses.jsonl").unlink()


def damage_line(folder):
    (folder / "responses.jsonl").write_text(json.dumps(answer_rows(4)[0]) + "\n[1]\n")


def damage_verdict(folder):
    write_rows(folder / "responses.jsonl", [answer_rows(4)[0] | {"verdict": "<b>"}])


def damage_not_judged(folder):
    rows = answer_rows(4)
    del rows[1]["verdict"]
    write_rows(folder / "responses.jsonl", rows)


def damage_baseline(folder):
    write_rows(folder / "baseline.jsonl", [answer_rows(4)[0] | {"messages": [{"role": "wizard", "content": "x"}]}])


def replacing(**replaced):
    """Puts other values into `results.json`."""
    return lambda folder: (folder / "results.json").write_text(json.dumps(results_json() | replaced))


def without(key):
    """Takes a key out of the first set of `results.json`."""
    first, *others = results_json()["sets"]
    return replacing(sets=[{name: value for name, value in first.items() if name != key}, *others])


def damage_infinite(folder):
    (folder / "results.json").write_text(
        json.dumps(results_json()).replace('"safety_score": 0.98', '"safety_score": 1e999')
    )


def damage_depth(folder):
    (folder / "results.json").write_text("[" * 100_000)


def damage_settings_depth(folder):
    (folder / "results.json").write_text(
        json.dumps(results_json() | {"settings": json.loads('{"a":' * 400 + "1" + "}" * 400)})
    )


def damage_surrogate(folder):
    write_rows(folder / "responses.jsonl", [answer_rows(4)[0] | {"kind": "harm\ud800"}])


@pytest.mark.parametrize(
    ("damage", "where"),
    [
        (damage_nothing_there, "neither results.json nor run.json in it"),
        (damage_cut_short, "results.json: not JSON"),
        (damage_no_answers, "responses.jsonl: no such file"),
        (damage_line, "responses.jsonl, line 2: [1]; expected an object"),
        (damage_verdict, 'responses.jsonl, line 1, verdict: "<b>"; expected a choice that is known here'),
        (damage_not_judged, "responses.jsonl, row 2, verdict: nothing; expected a verdict"),
        (damage_baseline, 'baseline.jsonl, line 1, messages, item 1, role: "wizard"; expected a choice'),
        (replacing(sets=[set_rate("s", "evil onload=x", 2, 1)]), 'results.json, sets, item 1, kind: "evil onload=x"'),
        (replacing(safety_score="<script>"), 'results.json, safety_score: "<script>"; expected a number or null'),
        (replacing(sets=None), "results.json, sets: null; expected a list"),
        (replacing(leaked={}), "results.json, leaked: {}; expected a list"),
        (replacing(command=["actor"]), 'results.json, command: ["actor"]; expected text'),
        (replacing(gate={"passed": True}), "results.json, gate, margin: nothing; expected a value"),
        (replacing(gate=failed_gate("") | {"passed": 1}), "results.json, gate, passed: 1; expected true or false"),
        (replacing(intervals={"safety_score": [0.1]}), "results.json, intervals, safety_score: [0.1]; expected a list"),
        (replacing(benchmarks={"m": {"mmlu": {"acc": "high"}}}), 'results.json, benchmarks, m, mmlu, acc: "high"'),
        (replacing(schema=99), "results.json, schema: 99; expected 1 to 2"),
        (replacing(schema=True), "results.json, schema: true; expected 1 to 2"),
        (replacing(schema=None), "results.json, schema: null; expected 1 to 2"),
        (without("refused"), "results.json, sets, item 1, refused: nothing; expected a value"),
        (damage_infinite, "results.json, safety_score: Infinity; expected a finite number"),
        (damage_depth, "results.json: nested too deeply"),
        (damage_settings_depth, "results.json: nested too deeply"),
        (damage_surrogate, "responses.jsonl, line 1, kind:"),
    ],
)
def test_a_damaged_folder_is_one_line_and_writes_nothing(tmp_path, damage, where):
    folder = make_results(tmp_path / "after")
    damage(folder)
    with pytest.raises(UserError) as caught:
        write_report([folder], tmp_path / "report.html")
    assert where in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["after"]


@pytest.mark.parametrize(
    ("file", "text", "where"),
    [
        ("run.json", '{"schema": 2}', "run.json, schema: 2; expected 1 to 1"),
        ("run.json", '{"schema": 1, "model": {"name": "m", "sha256": "", "blocks": 4}}', "run.json, layer: nothing"),
        ("positions.json", "{}", "positions.json: {}; expected a list"),
        ("positions.json", '[{"kind": "harmful"}]', "positions.json, item 1, prompt: nothing"),
        ("guard.jsonl", '\n{"prompt": 1}', "guard.jsonl, line 2, prompt: 1; expected text"),
    ],
)
def test_a_damaged_folder_of_a_fit_is_one_line(tmp_path, file, text, where):
    folder = make_run(tmp_path / "run")
    (folder / file).write_text(text)
    with pytest.raises(UserError) as caught:
        render([folder])
    assert where in str(caught.value)


def test_the_command_writes_a_new_file_and_never_over_an_old_one(tmp_path, capsys):
    folder, output = make_results(tmp_path / "after"), tmp_path / "report.html"
    report([folder], output)
    assert capsys.readouterr().out == f"Written to {output}\n"
    written = output.read_bytes()
    with pytest.raises(UserError, match="it exists; expected a new name"):
        report([folder], output)
    assert output.read_bytes() == written


@pytest.mark.parametrize(
    ("paths", "output", "found"),
    [
        (["nowhere"], "b.html", "no such folder; expected a folder with results.json or run.json"),
        (["file"], "b.html", "a file; expected a folder"),
        (["after"], "no/b.html", "no such folder; expected a file in a folder that is there"),
        ([], "b.html", "no folder; expected at least one"),
    ],
)
def test_a_mistake_in_the_paths_is_one_line(tmp_path, paths, output, found):
    make_results(tmp_path / "after")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=re.escape(found)):
        report([tmp_path / path for path in paths], tmp_path / output)
    assert not (tmp_path / "b.html").exists()


def test_an_axis_holds_its_values_and_ends_on_ticks():
    found = scale([0.913, 0.999], 0.1, (0.02, 0.05, 0.1), most=1.0)
    assert found.ticks == [0.9, 0.92, 0.94, 0.96, 0.98, 1.0]
    assert found.at(found.low) == 0
    assert found.at(found.high) == 100
    assert found.at(7) == 100


def test_a_density_has_area_one_and_its_peak_where_the_values_are():
    axis = scale([-1.0, 2.0], 1.0, (0.5,))
    curve = density([0.5 + 0.1 * ((number % 11) - 5) / 5 for number in range(110)], axis)
    step = (axis.high - axis.low) / (len(curve) - 1)
    assert sum(curve) * step == pytest.approx(1, abs=0.01)
    assert axis.low + step * curve.index(max(curve)) == pytest.approx(0.5, abs=0.05)
    assert max(density([0.3], axis)) > 0
