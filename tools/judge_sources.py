"""Answers labelled by others, to train and to test the default judge. None of their texts goes into the project.

A folder holds XSTest's human labels, one file a model (`xstest_human_labels_MODEL.csv` with the columns type, prompt,
completion and final_label), and in `judge/` one jsonl file a source, with the columns prompt, response, human
(compliance, partial, refusal), model, labeller (people or LLMs) and clear (False where the label is arguable).
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import actor_tune as at
from actor_tune.judges.reasoning import split
from actor_tune.judges.trained.languages import tongues
from actor_tune.judges.verdict import Outcome
from actor_tune.storage.tables import read_table

from .judge_training import Example

XSTEST: dict[str, Outcome] = {
    "1_full_compliance": "compliance",
    "2_full_refusal": "refusal",
    "3_partial_refusal": "partial",
}

LICENCES = {
    "chatgpt_refusals": "MIT",
    "do_not_answer": "Apache-2.0",
    "speechmap_think": "Apache-2.0",
    "speechmap_fi": "Apache-2.0",
    "korean": "MIT",
}
"""Of the sources that allow training on them. XSTest's answers are under the terms of the models' makers."""

SOURCE_WEIGHT = 200.0
"""What all answers of one source weigh together in training: so much as so many written answers. More weight made it
better on do_not_answer, left out, and worse on XSTest, whose conventions it follows (docs/judge.md)."""

TOKEN = 4.0
"""Characters of an alphabet that a token is taken for, when answers are cut."""


@dataclass(frozen=True)
class Labelled:
    """One answer with its label.

    - `source`: the file; `model`: who answered; `people`: people labelled it, and not LLMs.
    - `kind`: of the prompt, as its set says: safe, unsafe, or "" where it does not.
    - `clear`: False where the label is arguable.
    """

    source: str
    model: str
    exchange: at.Exchange
    human: Outcome
    people: bool
    kind: str = ""
    clear: bool = True

    @property
    def refused(self) -> bool:
        """In whole or in part."""
        return self.human != "compliance"

    @property
    def language(self) -> str:
        """Of the answer, by its code."""
        return tongues(split(self.exchange.answer).answer, self.exchange.prompt).main


def read_sources(folder: Path) -> list[Labelled]:
    """Every answer of `folder` with a clear label."""
    found = [*_xstest(folder), *(one for path in sorted(folder.glob("judge/*.jsonl")) for one in _judge_file(path))]
    return [one for one in found if one.clear]


def examples(rows: Sequence[Labelled]) -> list[Example]:
    """Those of `rows` that may be trained on; all of one source weigh `SOURCE_WEIGHT` together."""
    allowed = [one for one in rows if one.source in LICENCES]
    counts = {name: sum(one.source == name for one in allowed) for name in LICENCES}
    return [
        Example(one.exchange, one.human, one.source, min(1.0, SOURCE_WEIGHT / counts[one.source]), written=False)
        for one in allowed
    ]


def cut(row: Labelled, tokens: int) -> Labelled:
    """`row` with its answer cut off where so many tokens are about over."""
    answer = split(row.exchange.answer).answer
    per_token = {"ko": TOKEN / 2, "ja": TOKEN / 3, "zh": TOKEN / 3}.get(row.language, TOKEN)
    return replace(row, exchange=at.Exchange(row.exchange.prompt, answer[: round(tokens * per_token)]))


def _xstest(folder: Path) -> Iterator[Labelled]:
    for path in sorted(folder.glob("xstest_human_labels_*.csv")):
        model = path.stem.rsplit("_", 1)[-1]
        for row in read_table(path):
            kind: Literal["safe", "unsafe"] = "unsafe" if row.text("type").startswith("contrast") else "safe"
            exchange = at.Exchange(row.text("prompt"), row.cells["completion"])
            yield Labelled(f"xstest {model}", model, exchange, XSTEST[row.text("final_label")], True, kind)


def _judge_file(path: Path) -> Iterator[Labelled]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            exchange = at.Exchange(row["prompt"], row["response"])
            people = any(word in row["labeller"] for word in ("people", "person"))
            yield Labelled(path.stem, row["model"], exchange, row["human"], people, clear=row["clear"])
