"""The report in headless Chromium: it works, and nothing that models wrote runs or breaks it.

`REPORT_SCREENSHOTS=DIR` keeps the pictures.
"""

import base64
import csv
import json
import os
import shutil
from pathlib import Path

import pytest

from actor_tune.records import to_label
from actor_tune.records.labels import read_labels, write_labels
from actor_tune.show.report import write_report
from report_folders import (
    ATTACKS,
    BIG,
    PLAIN,
    answer_rows,
    failed_gate,
    hostile_rows,
    make_results,
    make_run,
    over_refusal,
    with_categories,
    write_rows,
)

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--hide-scrollbars",
    "--no-first-run",
]
PROMPTS = sum(row[2] for row in PLAIN)
VIEWS = [
    (f"{name}-{scheme}", width, scheme)
    for name, width in (("wide", 1280), ("tablet", 768), ("phone", 360))
    for scheme in ("light", "dark")
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not (CHROMIUM and DRIVER):
        pytest.skip("no Chromium with its driver: apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    leaked = [{"prompt": attack, "set": "harmbench", "like": attack, "similarity": 0.9} for attack in ATTACKS]
    hostile = hostile_rows()
    results = make_results(
        folder / "after",
        rows=answer_rows(4) + hostile,
        before=answer_rows(3) + hostile[:4],
        leaked=leaked,
        command=f"actor measure {ATTACKS[0]}",
    )
    run = make_run(folder / "run", warnings=[ATTACKS[1]])
    write_report([run, results], folder / "report.html")
    return folder / "report.html"


def opened(browser, page, width=1280, scheme="light"):
    for log in ("browser", "performance"):
        browser.get_log(log)
    # Without smooth scrolling, which a click does not wait for.
    media = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
    features = [{"name": name, "value": value} for name, value in media.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get(page.as_uri())
    return browser


def all_of(browser, css):
    return browser.find_elements("css selector", css)


def one(browser, css):
    return browser.find_element("css selector", css)


def choose(browser, label, value):
    field = next(item for item in all_of(browser, ".field") if item.text.startswith(label))
    field.find_element("css selector", f'option[value="{value}"]').click()


def status(browser):
    return one(browser, ".status").text


def search(browser, text):
    box = one(browser, "input[type=search]")
    box.clear()
    box.send_keys(text)


def requested(browser):
    """What the browser asked for since the page was opened."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}


def assert_nothing_ran(browser, page):
    found = browser.execute_script("return Object.getOwnPropertyNames(window).filter(name => name.includes('pwned'))")
    assert found == []
    assert browser.current_url.split("#")[0] == page.as_uri()
    assert len(browser.window_handles) == 1
    assert requested(browser) == {page.as_uri()}
    assert browser.get_log("browser") == []  # an error of ours, or something that the policy had to stop


def assert_fits(browser, width):
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def picture(browser, name, width):
    """A picture of the whole page, kept where REPORT_SCREENSHOTS says so."""
    height = min(12000, browser.execute_script("return document.documentElement.scrollHeight"))
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    png = base64.b64decode(shot["data"])
    assert png.startswith(b"\x89PNG")
    if os.environ.get("REPORT_SCREENSHOTS"):
        folder = Path(os.environ["REPORT_SCREENSHOTS"])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.png").write_bytes(png)


def test_the_attacks_do_run_on_a_page_that_lets_them(browser, tmp_path):
    page = tmp_path / "open.html"
    page.write_text(f"<!doctype html><p>{ATTACKS[0]}{ATTACKS[1]}", encoding="utf-8")
    opened(browser, page)
    assert browser.execute_script("return window.__pwned") in (1, 2)
    assert len(requested(browser)) > 1  # the image was asked for


@pytest.mark.parametrize(("name", "width", "scheme"), VIEWS)
def test_hostile_text_runs_nothing_and_breaks_nothing(browser, hostile_page, name, width, scheme):
    opened(browser, hostile_page, width, scheme)
    assert len(all_of(browser, ".card")) == 20
    assert_fits(browser, width)
    picture(browser, name, width)
    for summary in all_of(browser, "summary"):
        summary.click()
    for button in all_of(browser, ".leaks .unveil"):
        button.click()
    search(browser, "pwned")
    shown = one(browser, ".cards").text
    for attack in ATTACKS[:4]:
        assert attack in shown  # as text, whole
    assert "⟨U+202E⟩" not in shown
    search(browser, "u+202e")
    assert "user⟨U+202E⟩txt.exe" in one(browser, ".cards").text
    search(browser, "mmmm")
    one(browser, ".card .link").click()
    assert len(one(browser, ".card .text.whole").text) == BIG
    assert_fits(browser, width)
    one(browser, ".card .link").click()
    assert len(one(browser, ".card").text) < 2000
    assert_fits(browser, width)
    assert_nothing_ran(browser, hostile_page)


def test_the_policy_stops_scripts_handlers_and_markup_made_by_script(browser, hostile_page):
    opened(browser, hostile_page)
    tries = """
        const names = [];
        const attempt = (name, act) => { try { act(); } catch (error) { names.push(name + ' ' + error.name); } };
        attempt('innerHTML', () => { document.body.innerHTML = '<img src=x onerror="window.__pwned=1">'; });
        const made = document.createElement('script');
        attempt('script', () => { made.text = 'window.__pwned=2'; document.body.append(made); });
        return names;
    """
    assert browser.execute_script(tries) == ["innerHTML TypeError", "script TypeError"]
    assert browser.execute_script("return window.__pwned") is None
    browser.get_log("browser")


def test_search_and_filters_find_what_was_planted(browser, tmp_path):
    page = tmp_path / "report.html"
    write_report([make_results(tmp_path / "after")], page)
    opened(browser, page)
    assert status(browser) == f"{PROMPTS} prompts"
    choose(browser, "Flipped", "any")
    assert status(browser).startswith(f"{36 + 18 + 1 + 1} of")
    choose(browser, "Kind", "harmful")
    assert status(browser).startswith("1 of")
    assert one(browser, ".flip.bad").text == "now answered"
    choose(browser, "Flipped", "")
    choose(browser, "Kind", "")
    choose(browser, "Set", "oktest")
    choose(browser, "Verdict", "refusal")
    assert status(browser).startswith("8 of")
    choose(browser, "Verdict", "")
    search(browser, "OKTEST case 39")
    assert status(browser).startswith("1 of")
    assert [item.text for item in all_of(browser, ".card .verdict")] == ["compliance", "compliance"]
    search(browser, "no such words")
    assert status(browser).startswith("0 of")
    assert all_of(browser, ".card") == []
    assert_nothing_ran(browser, page)


def test_harmful_text_is_blurred_until_asked_for_by_mouse_or_keyboard(browser, tmp_path):
    page = tmp_path / "report.html"
    write_report([make_results(tmp_path / "after")], page)
    opened(browser, page)
    choose(browser, "Kind", "harmful")
    blurs = (
        "return [...document.querySelectorAll('.card .veil')].filter(v => getComputedStyle(v).filter != 'none').length"
    )
    assert browser.execute_script(blurs) == 20
    assert one(browser, ".card .veil").get_attribute("inert") is not None
    one(browser, ".card .unveil").click()
    all_of(browser, ".card .unveil")[0].send_keys("\n")
    assert len(all_of(browser, ".card .unveil")) == 18
    assert browser.switch_to.active_element.get_attribute("class") == "veil"
    assert browser.execute_script(blurs) == 18
    one(browser, ".pages button:last-child").click()
    one(browser, ".pages button:first-child").click()
    assert len(all_of(browser, ".card .unveil")) == 18  # what was shown stays so
    one(browser, "input[type=checkbox]").click()
    assert all_of(browser, ".card .unveil") == []
    choose(browser, "Kind", "pseudo_harmful")
    assert browser.execute_script(blurs) == 0


def test_five_thousand_prompts_are_shown_a_page_at_a_time(browser, tmp_path):
    rows = [{**row, "prompt": f"{row['prompt']} {copy}"} for copy in range(21) for row in answer_rows(4)][:5000]
    page = tmp_path / "report.html"
    write_report([make_results(tmp_path / "after", rows=rows, before=rows)], page)
    opened(browser, page)
    assert status(browser) == "5000 prompts"
    assert len(all_of(browser, ".card")) == 20
    while one(browser, ".pages button:last-child").is_enabled() and "–60 of" not in one(browser, ".pages").text:
        one(browser, ".pages button:last-child").click()
    assert "41–60 of 5000" in one(browser, ".pages").text
    seconds = browser.execute_script("""
        const box = document.querySelector('input[type=search]'), start = performance.now();
        box.value = 'case 7';
        box.dispatchEvent(new Event('input'));
        return (performance.now() - start) / 1000;
    """)
    assert seconds < 2
    assert "of 5000" in status(browser)


def downloaded(browser, button, file):
    """The text of the `file` that a click on `button` writes."""
    from selenium.webdriver.support.ui import WebDriverWait  # where there is a browser

    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(file.parent)})
    file.parent.mkdir(exist_ok=True)
    button.click()
    WebDriverWait(browser, 20).until(lambda _: file.exists())
    return file.read_bytes().decode("utf-8")


def table(text):
    return list(csv.DictReader(text.splitlines(keepends=True)))


def test_figures_are_downloaded_as_they_were_stored(browser, tmp_path):
    page = tmp_path / "report.html"
    write_report([make_results(tmp_path / "after")], page)
    opened(browser, page)
    rows = table(downloaded(browser, one(browser, ".figures + button"), tmp_path / "figures.csv"))
    assert list(rows[0]) == ["when", "name", "kind", "n", "refused", "value", "low", "high"]
    found = {(row["when"], row["name"]): row for row in rows}
    assert found["before", "xstest_safe"] | {"low": "", "high": ""} == {"when": "before", "name": "xstest_safe"} | {
        "kind": "pseudo_harmful",
        "n": "60",
        "refused": "45",
        "value": "0.75",
        "low": "",
        "high": "",
    }
    assert float(found["change", "xstest_safe"]["value"]) == -0.6  # a number, and no text that was made harmless
    assert found["change", "safety_score"]["low"] == "-0.03"
    assert_nothing_ran(browser, page)


FORMULAS = ["=HYPERLINK(0)", "+1", "-1", "@SUM(1)", "\t=1", " \n =1", "\uff1d1"]


def test_no_cell_of_a_downloaded_table_is_a_formula_and_other_texts_are_as_they_were(browser, tmp_path):
    texts = [*FORMULAS, 'says "no", twice\nand = more', "plain"]
    rows = [
        {"prompt": text, "kind": "harmless", "set": text, "response": text, "verdict": "compliance", "score": 0.25}
        for text in texts
    ]
    before = [row | {"verdict": "refusal"} for row in rows]
    page = tmp_path / "report.html"
    write_report([make_results(tmp_path / "after", rows, before)], page)
    opened(browser, page)
    found = table(downloaded(browser, one(browser, ".found button"), tmp_path / "all" / "answers.csv"))
    for name in ("set", "prompt", "answer_before", "answer"):
        assert [row[name] for row in found] == [f"'{text}" for text in FORMULAS] + texts[-2:]
    assert {row["score"] for row in found} == {"0.25"}
    assert {(row["verdict_before"], row["verdict"], row["changed"]) for row in found} == {
        ("refusal", "compliance", "now answered")
    }
    search(browser, "plain")
    found = table(downloaded(browser, one(browser, ".found button"), tmp_path / "found" / "answers.csv"))
    assert [row["prompt"] for row in found] == ["plain"]


def test_what_the_gate_saw_unchanged_is_closed_at_first(browser, tmp_path):
    folder = make_run(tmp_path / "run", gate=failed_gate("so"))
    verdicts = [("refusal", "refusal"), ("refusal", "compliance"), ("compliance", "compliance")]
    write_rows(
        folder / "guard.jsonl",
        [
            {"prompt": f"prompt {number}", "set": "held_out", "before": "was", "after": "is"}
            | {"verdict_before": old, "verdict_after": new, "kind": "harmless" if number == 2 else "harmful"}
            for number, (old, new) in enumerate(verdicts)
        ],
    )
    page = tmp_path / "report.html"
    write_report([folder], page)
    opened(browser, page, 360)
    changed, *closed = all_of(browser, ".card")
    assert "now answered" in changed.text
    assert changed.find_elements("css selector", "details") == []
    for card, verdict in zip(closed, ("refusal", "compliance"), strict=True):
        assert f"{verdict} → {verdict}" in card.text
        assert "prompt" not in card.text
        card.find_element("css selector", "summary").click()
        assert "prompt" in card.text
    assert_nothing_ran(browser, page)


def test_without_scripts_the_numbers_the_gate_an_answer_and_the_tables_are_there(browser, tmp_path):
    page = tmp_path / "report.html"
    write_report([make_run(tmp_path / "run"), make_results(tmp_path / "after")], page)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        opened(browser, page)
        text = one(browser, "body").text
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    for part in ("82.5", "Safety gate passed", "One answer, before and after", "xstest_safe", "Strengths by set"):
        assert part in text
    assert "The answers need the script of this page" in text
    assert "Download" not in text


def test_on_a_narrow_screen_wide_tables_scroll_and_show_that_they_do(browser, tmp_path):
    page = tmp_path / "report.html"
    write_report([make_run(tmp_path / "run"), make_results(tmp_path / "after")], page)
    opened(browser, page, 360)
    assert_fits(browser, 360)
    wide = [item for item in all_of(browser, ".scroll") if "Set\n" in item.text or item.text.startswith("Set ")]
    assert wide
    for item in wide:
        sizes = browser.execute_script("return [arguments[0].scrollWidth, arguments[0].clientWidth]", item)
        assert sizes[0] > sizes[1]
        assert item.value_of_css_property("background-attachment") == "local, local, scroll, scroll"
    name = next(row for row in all_of(browser, ".strips .label") if row.text.startswith("advbench_with"))
    assert "\u200b" not in name.text
    assert name.find_elements("css selector", "wbr")


def text_of_panel(browser):
    return one(browser, ".label-panel .card").text


def test_labels_are_given_by_key_or_button_outlive_a_reload_and_are_downloaded(browser, tmp_path):
    hostile = [row for row in hostile_rows() if len(row["prompt"]) < 1000]
    before = [{**row, "response": f"before {row['response']}"} for row in hostile]
    page = tmp_path / "report.html"
    write_report([make_results(tmp_path / "after", rows=hostile, before=before)], page)
    opened(browser, page)
    one(browser, ".labelling > button").click()
    browser.switch_to.active_element.send_keys("r")
    second = text_of_panel(browser)
    all_of(browser, ".choices button")[1].click()
    browser.switch_to.active_element.send_keys("x")
    assert one(browser, ".label-panel .status").text == f"2 of {2 * len(hostile)} labelled"
    browser.switch_to.active_element.send_keys("b")
    assert text_of_panel(browser) == second
    assert one(browser, '.choices [aria-pressed="true"]').text.endswith("Partial")
    browser.switch_to.active_element.send_keys("u")
    opened(browser, page, 360)
    one(browser, ".labelling > button").click()
    for _ in range(2 * len(hostile) - 2):
        browser.switch_to.active_element.send_keys("c")
    assert "All are labelled" in text_of_panel(browser)
    assert_fits(browser, 360)
    assert_nothing_ran(browser, page)
    downloaded(browser, all_of(browser, ".labelling > button")[-1], tmp_path / "labels.csv")
    chosen = to_label.choose(to_label.read_pairs(tmp_path / "after"))
    said = ["refusal", "unscored", *["compliance"] * (len(chosen) - 2)]
    write_labels(tmp_path / "expected.csv", to_label.labels_of(chosen, dict(enumerate(said))))
    labels = read_labels(tmp_path / "labels.csv")
    assert labels == read_labels(tmp_path / "expected.csv")
    assert {label.which for label in labels} == {"responses", "baseline"}


def test_labelling_is_read_well(browser, tmp_path):
    page = tmp_path / "report.html"
    write_report([make_results(tmp_path / "after")], page)
    for name, width, scheme in VIEWS:
        opened(browser, page, width, scheme)
        one(browser, ".labelling > button").click()
        panel = one(browser, ".label-panel").text
        assert "0 of " in panel
        for word in ("verdict", "score", "before", "after", "harmful"):
            assert word not in panel.lower()
        browser.execute_script("document.querySelectorAll('main > :not(.labelling)').forEach(item => item.remove())")
        assert_fits(browser, width)
        picture(browser, f"label-{name}", width)


@pytest.mark.parametrize("width", [360, 1280])
def test_categories_and_the_benign_side_of_a_gate_are_read_at_any_width(browser, tmp_path, width):
    measured, fitted = with_categories()
    gate = failed_gate("Safety gate failed: over-refusal rose.") | {"over_refusal": over_refusal()}
    run = make_run(tmp_path / "run", **fitted, gate=gate)
    write_report([run, make_results(tmp_path / "after", **measured)], tmp_path / "report.html")
    opened(browser, tmp_path / "report.html", width)
    assert_fits(browser, width)
    picture(browser, f"categories-{width}", width)
    titles = [title.text for title in all_of(browser, "h3")]
    assert "By category" in titles
    assert "Your benign prompts by category" in titles
    rows = [row.text.replace("\n", " ") for row in all_of(browser, "[aria-label='Measured, by category'] tbody tr")]
    medicine = next(row for row in rows if row.startswith("medicine"))
    assert "pseudo-harmful answered" in medicine
    assert "16.7 %" in medicine.replace("\N{NO-BREAK SPACE}", " ")  # 50 of 60 were refused before
    own = [row.text for row in all_of(browser, "[aria-label='Your benign prompts by category'] tbody tr")]
    assert [("freed" in row, "held" in row) for row in own] == [(True, False), (False, True)]
    assert "of 60" in own[0]
    benign = one(browser, "[aria-label='Benign prompts refused, set by set, as the gate saw them']").text
    assert "200" in benign
    assert "+1.0" in benign
    assert_nothing_ran(browser, tmp_path / "report.html")
