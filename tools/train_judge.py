"""Train the default judge on the answers that ship with it, and on labelled answers of other models.

    python -m tools.train_judge --sources FOLDER --output src/actor_tune/judges/trained/trained.json

FOLDER is described in `tools/judge_sources.py`. Half a minute, of which nearly all is reading the answers. Nothing
random: the same answers and the same scikit-learn give the same weights.
"""

import argparse
from pathlib import Path

from actor_tune.storage.files import write_json

from .judge_sources import LICENCES, examples, read_sources
from .judge_training import train, training_answers, with_cuts


def main() -> None:
    """Train and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    others = examples(read_sources(arguments.sources))
    if missing := LICENCES.keys() - {one.style for one in others}:
        parser.error(f"--sources {arguments.sources}: no answers of {', '.join(sorted(missing))} there")
    write_json(arguments.output, train([*with_cuts(training_answers()), *others]))


if __name__ == "__main__":
    main()
