"""From what was stored to one HTML page that loads nothing and runs nothing but its own script. Pure."""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import inf
from typing import Any

import jinja2
from markupsafe import Markup, escape

from ...records.file import json_of
from ...records.labels import digest, storable
from ...records.response import ResponseRow
from ...records.results import Results
from ...records.run import GATE_ANSWERS_FILE, YOURS_FILE
from ...records.to_label import Chosen, choose
from ..categories import category_rows, own_rows
from . import charts, search, words
from .load import RESPONSES_FILE, FitFolder, MeasureFolder, Pair
from .sets import WISHES, Cell, figures, set_rows, strength_rows

DAMAGE = {
    "kl_harmless": ("KL on harmless prompts, first answer token", "{:.3f} nats"),
    "kl_harmless_tokens": ("KL on harmless prompts, several tokens", "{:.3f} nats"),
    "perplexity": ("Perplexity on plain text", "{:.2f}"),
    "garbled_share": ("Garbled answers", "{:.1%}"),
    "unfinished_share": ("Answers cut off by the limit of tokens", "{:.1%}"),
    "mean_words": ("Mean length of an answer", "{:.1f} words"),
}
"""What each damage figure is called, and how it is written."""

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls, but for tab and line feed
    "\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # invisible, or turn text round
    "\ud800-\udfff"  # halves of surrogate pairs, which UTF-8 cannot write
    "\U000e0000-\U000e007f]"  # tags
)


def visible(text: str) -> str:
    """`text` with every character named that cannot be seen or that turns the text around it: `⟨U+202E⟩`.

    A model can write them, and they can make one answer look like another. Joiners stay: scripts and emoji need them.
    """
    return _HIDDEN.sub(lambda match: f"⟨U+{ord(match.group()):04X}⟩", text.replace("\r\n", "\n"))


def page(measured: Sequence[MeasureFolder], fits: Sequence[FitFolder]) -> str:
    """The page, a function of its arguments alone.

    What folders hold is hostile: it is made `visible`, and goes through autoescaping, or as JSON with `<`, `>`, `&` and
    all that is not ASCII escaped into a block that is not run. The policy names the page's own style and script by hash
    and forbids the rest.
    """
    style, script = asset("page.css"), asset("page.js")
    gates = [gate for gate in (*(item.results.gate for item in measured), *(fit.run.gate for fit in fits)) if gate]
    return (
        environment()
        .get_template("page.html")
        .render(
            measured=measured,
            fits=fits,
            dates=words.dates(measured, fits),
            numbers=[(item.name, words.numbers(item.results, gates)) for item in measured]
            or [(item.name, words.fit_numbers(item)) for item in fits],
            banners=words.banners(measured, fits),
            errors={item.name: words.judge_errors(item.results.labels) for item in measured},
            example=example(measured),
            sets={item.name: set_rows(item.results) for item in measured},
            categories={item.name: category_rows(item.results) for item in measured},
            own={item.name: own_rows(item.run.yours) for item in fits},
            figures={item.name: _shown(figures(item.results)) for item in measured},
            damage={item.name: damage(item.results) for item in measured},
            benchmarks={item.name: benchmarks(item.results) for item in measured},
            kinds={item.name: {pair.after.set: pair.after.kind for pair in item.answers} for item in measured},
            fit_sentences={item.name: words.fit_sentence(item.run) for item in fits},
            chosen={item.name: words.chosen_trial(item.run) for item in fits},
            limits={item.name: words.limits(item.run) for item in fits},
            frontier=charts.frontier([(item.name, item.results) for item in measured]),
            strengths={item.name: charts.strengths(item) for item in fits},
            strength_sets={item.name: strength_rows(item.run.trials, words.chosen_trial(item.run)) for item in fits},
            ridges={item.name: charts.ridges(item.positions) for item in fits if item.positions},
            clouds={item.name: search.cloud(item.tuning) for item in fits if item.tuning},
            listed=search.listed,
            courses={item.name: charts.path_charts(item.paths) for item in fits},
            bars={item.name: charts.scan_bars(item.run.scan or []) for item in fits},
            shares=charts.SHARES,
            wishes=WISHES,
            browsers=browsers(measured, fits),
            labelling=labellings(measured),
            origins=origins(measured, fits),
            style=Markup(style),
            script=Markup(script),
            style_hash=sha256_of(style),
            script_hash=sha256_of(script),
        )
    )


@cache
def environment() -> jinja2.Environment:
    """What templates are read and filled by."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(asset),
        autoescape=True,
        finalize=lambda value: visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {}  # columns of a table in their order, not sorted
    environment.filters |= {
        "percent": words.percent,
        "points": words.points,
        "interval": words.interval,
        "interval_of_difference": words.interval_of_difference,
        "p_value": words.p_value,
        "minus": lambda text: text.replace("-", words.MINUS),
        "kind": lambda kind: kind.replace("_", "-"),
        "name": name,
    }
    return environment


def name(text: str) -> Markup:
    """`text`, a name or a path, which a narrow screen breaks after `_` and `/`."""
    return Markup(re.sub("([_/])", r"\1<wbr>", str(escape(visible(text)))))


def _shown(rows: Iterable[dict[str, Cell]]) -> list[dict[str, Cell]]:
    return [{key: visible(cell) if isinstance(cell, str) else cell for key, cell in row.items()} for row in rows]


@dataclass(frozen=True)
class Figure:
    """A figure before and after, as text; None where it was not measured. Benchmarks have several by `metric`."""

    name: str
    before: str | None
    after: str | None
    metric: str = ""


def damage(results: Results) -> list[Figure]:
    """The damage figures that there are, in the order of `DAMAGE`."""
    after = {"kl_harmless": results.kl_harmless} | results.damage
    before = dict(results.baseline.damage) if results.baseline else {}
    if after.get("perplexity_baseline") is not None:  # stored beside the model's
        before["perplexity"] = after["perplexity_baseline"]
    rows = [
        Figure(name, _with_unit(before.get(key), form), _with_unit(after.get(key), form))
        for key, (name, form) in DAMAGE.items()
    ]
    return [row for row in rows if row.before or row.after]


def _with_unit(value: float | None, form: str) -> str | None:
    return None if value is None else form.format(value).replace("%", " %").replace(" ", words.NBSP)


def benchmarks(results: Results) -> list[Figure]:
    """Each metric of each task that the model has."""
    before = results.benchmarks.get(results.baseline.model, {}) if results.baseline else {}

    def number(value: float | None) -> str | None:
        return None if value is None else f"{value:.3f}".replace("-", words.MINUS)

    return [
        Figure(task, number(before.get(task, {}).get(metric)), number(value), metric)
        for task, metrics in results.benchmarks.get(results.model, {}).items()
        for metric, value in metrics.items()
    ]


@dataclass(frozen=True)
class Example:
    """One before and after: a pseudo-harmful prompt that was refused and is answered now.

    `answered`: how many of the `asked` were; `refused`: how many went the other way.
    """

    source: str
    pair: dict[str, Any]
    answered: int
    refused: int
    asked: int


def example(measured: Sequence[MeasureFolder]) -> Example | None:
    """Of the first folder that has some, the one whose answer is of median length, so that it is not the best one."""
    for item in measured:
        pairs = [pair for pair in item.answers if pair.after.kind == "pseudo_harmful" and pair.before]
        flips = [pair.flipped for pair in pairs]
        answered = [pair for pair in pairs if pair.flipped == "answered"]
        if answered:
            ranked = sorted(answered, key=lambda pair: (len(pair.after.response), pair.after.prompt))
            shown = pair_json(ranked[(len(ranked) - 1) // 2])
            return Example(item.name, shown, len(answered), flips.count("refused"), len(pairs))
    return None


@dataclass(frozen=True)
class Browser:
    """A list of prompts with their answers, to be searched; `rows` are as the page's script takes them.

    `collapsed`: those that did not change are closed at first.
    """

    title: str
    name: str
    note: str
    file: str
    compared: bool
    collapsed: bool
    rows: list[dict[str, Any]]


def browsers(measured: Sequence[MeasureFolder], fits: Sequence[FitFolder]) -> list[Browser]:
    """One for each folder that holds answers."""
    found = []
    for item in measured:
        compared = any(pair.before for pair in item.answers)
        note = (
            "Every prompt with both answers, those that flipped first." if compared else "Every prompt and its answer."
        )
        note += " Score: how likely the answer refuses, says the judge."
        if item.unmatched:
            note += f" Answers of the baseline that belong to no prompt here, and are left out: {item.unmatched}."
        found.append(Browser("Answers", item.name, note, RESPONSES_FILE, compared, False, _rows(item.answers)))
    for fit in fits:
        note = "Prompts that you gave: the fit learned from them, so that they say nothing about others."
        found.append(Browser("Your prompts", fit.name, note, YOURS_FILE, True, False, _rows(fit.yours)))
        note = "Held-out prompts that the fit's gate asked, those that flipped first; the others are closed."
        found.append(Browser("Answers of the gate", fit.name, note, GATE_ANSWERS_FILE, True, True, _rows(fit.answers)))
    return [browser for browser in found if browser.rows]


def _rows(pairs: Iterable[Pair]) -> list[dict[str, Any]]:
    return [pair_json(pair) for pair in sorted(pairs, key=lambda pair: not pair.flipped)]


def pair_json(pair: Pair) -> dict[str, Any]:
    """One prompt with its answers, as the page's script takes it."""
    row = pair.after
    return {
        "prompt": visible(row.prompt),
        "kind": row.kind,
        "set": visible(row.set),
        "flipped": pair.flipped,
        "earlier": [{"role": turn.role, "content": visible(turn.content)} for turn in row.context],
        "answers": [_answer_json(answer) for answer in (pair.before, pair.after) if answer],
    }


def _answer_json(row: ResponseRow) -> dict[str, Any]:
    return {
        "text": visible(row.response),
        "verdict": row.verdict,
        "score": row.score,
        "reason": visible(row.reason or ""),
        "finished": row.finished,
    }


@dataclass(frozen=True)
class Labelling:
    """Answers of a folder to label; `id` is the sample's own, `answers` are as the page's script takes them."""

    name: str
    id: str
    answers: list[dict[str, Any]]


def labellings(measured: Sequence[MeasureFolder]) -> list[Labelling]:
    """One for each folder with answers that a judge could score: those that `actor label` asks too."""
    found = []
    for item in measured:
        answers = [_to_label(one) for one in choose(item.answers)]
        if answers:
            sample = hashlib.sha256(json.dumps(answers).encode()).hexdigest()[:16]
            found.append(Labelling(item.name, sample, answers))
    return found


def _to_label(one: Chosen) -> dict[str, Any]:
    """An answer without its verdict, which would sway whoever labels it."""
    row = one.row
    return {
        # As it is, for the file, where texts are matched; and as it is shown, where that differs.
        "row": {"set": storable(row.set), "kind": row.kind, "context": digest(row.context) or ""}
        | {"prompt": storable(row.prompt), "response": storable(row.response)},
        "sides": list(one.sides),
        "rank": one.drawn.rank,
        "size": one.drawn.size,
        "beyond": None if one.drawn.beyond == inf else one.drawn.beyond,
        "prompt": _other(row.prompt),
        "response": _other(row.response),
        "earlier": [{"role": turn.role, "content": visible(turn.content)} for turn in row.context],
        "finished": row.finished,
    }


def _other(text: str) -> str | None:
    """`text` as it is shown, where that is not as it is."""
    shown = visible(text)
    return None if shown == text else shown


@dataclass(frozen=True)
class Origin:
    """How a folder was made: the command, and settings and versions by name, as text."""

    name: str
    command: str
    settings: dict[str, str]
    versions: dict[str, str]


def origins(measured: Sequence[MeasureFolder], fits: Sequence[FitFolder]) -> list[Origin]:
    """One for each folder."""
    found = []
    for item in measured:
        results = item.results
        more = {"date": results.date, "judge": results.judge, "engine": results.engine}
        more = {key: value for key, value in more.items() if value}
        found.append(Origin(item.name, results.command, _flat(results.settings | more), results.versions))
    for fit in fits:
        run = fit.run
        settings = run.settings | {"seconds": run.seconds, "prompts": json_of(run.prompts)}
        settings |= {"date": run.date} if run.date else {}
        found.append(Origin(fit.name, run.command, _flat(settings), run.versions))
    return found


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings with their names joined by dots."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            shown = value if isinstance(value, str) else visible(json.dumps(value, ensure_ascii=False))[:60]
            flat[prefix + key] = shown
    return flat


def asset(name: str) -> str:
    """The text of a file beside this one."""
    return (files(__package__) / name).read_text(encoding="utf-8")


def sha256_of(text: str) -> str:
    """As a policy names the style and the script that it allows."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
