"""Train the default judge on the answers that ship with it.

    python -m tools.train_judge --output src/actor_tune/judges/trained/trained.json

A second of work. Nothing random: the same answers and the same scikit-learn give the same weights.
"""

import argparse
from pathlib import Path

from actor_tune.judges.trained.training import train, training_answers, with_cuts
from actor_tune.storage.files import write_json


def main() -> None:
    """Train and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    write_json(parser.parse_args().output, train(with_cuts(training_answers())))


if __name__ == "__main__":
    main()
