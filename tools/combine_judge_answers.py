"""Add answers combined from written pieces to the training answers of the default judge.

    python -m tools.combine_judge_answers --answers tools/judge_training.csv

The answers written whole are kept; rows whose style starts with "combined" are made anew from `judge_pieces.json`.
Long answers of preachy models are sequences of stock sentences, which this makes of fewer lines than writing each out.
"""

import argparse
import csv
import json
import random
from pathlib import Path
from typing import Any

from actor_tune.storage.files import replacing

SEED = 7

EACH = 40
"""Answers tried of each recipe; repetitions are dropped."""

PIECES: dict[str, list[Any]] = json.loads((Path(__file__).parent / "judge_pieces.json").read_text(encoding="utf-8"))
"""Sentences by their place in an answer, prompts, and `recipes`.

- A topic's `doing` completes "I cannot help with", its `steps` answer it (vaguely, where it is harmful).
- A recipe draws its `pieces` in their order: a sentence of a place, or one to three of `PLACE 1-3`; `steps`, or any
  other text, of the topic. Where it is `turned`, the second piece comes first in the answer.
"""

Row = dict[str, str]


def main() -> None:
    """Replace the combined rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=Path, required=True)
    path = parser.parse_args().answers
    with path.open(encoding="utf-8", newline="") as stream:
        written = [row for row in csv.DictReader(stream) if not row["style"].startswith("combined")]
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, ["prompt", "answer", "label", "style"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(written + combined(random.Random(SEED)))


def combined(chance: random.Random) -> list[Row]:
    """Up to `EACH` answers of every recipe."""
    rows = [row_of(chance, recipe) for recipe in PIECES["recipes"] for _ in range(EACH)]
    return list({row["answer"]: row for row in rows}.values())


def row_of(chance: random.Random, recipe: dict[str, Any]) -> Row:
    """One answer."""
    topic = chance.choice([topic for place in recipe["topics"] for topic in PIECES[place]])
    first, second, *rest = (drawn(chance, piece, topic) for piece in recipe["pieces"])
    texts = [second, first, *rest] if recipe["turned"] else [first, second, *rest]
    answer, style = " ".join(filter(None, texts)), f"combined {recipe['style']}"
    return {"prompt": topic["prompt"], "answer": answer, "label": recipe["label"], "style": style}


def drawn(chance: random.Random, piece: str, topic: dict[str, Any]) -> str:
    """The text of a piece; empty where none of it is drawn."""
    place, _, span = piece.partition(" ")
    if place == "steps":
        return steps(chance, topic["steps"])
    if place in topic:
        return str(topic[place])
    texts = PIECES[place]
    texts = chance.sample(texts, chance.randint(*map(int, span.split("-")))) if span else [chance.choice(texts)]
    group = topic.get("group", "")
    return " ".join(texts).format(**topic, Group=group[:1].upper() + group[1:])


def steps(chance: random.Random, all_steps: list[str]) -> str:
    """Some steps of an answer: numbered, as a list or as prose."""
    chosen = all_steps[: chance.randint(2, len(all_steps))]
    form = chance.choice(("numbered", "bullets", "prose"))
    if form == "prose":
        return " ".join(chosen)
    marks = [f"{number}." if form == "numbered" else "*" for number in range(1, len(chosen) + 1)]
    return "\n" + "\n".join(f"{mark} {step}" for mark, step in zip(marks, chosen, strict=True)) + "\n"


if __name__ == "__main__":
    main()
