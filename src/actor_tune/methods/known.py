"""The methods by name, in the order of tables."""

from collections.abc import Mapping

from ..prompts import Prompt
from ..respond import Response
from .actor import actor
from .cae import cae, random_direction
from .crow import crow
from .inferaligner import inferaligner
from .method import Method
from .scans import scans
from .sft import sft
from .surgical import surgical

DEFAULT = "default"
"""The model as it is."""

METHODS = (DEFAULT, "actor", "paper", "uniform", "sft", "cae", "random-direction", "surgical", "scans", "inferaligner")

CORESETS = ("upcore", "random-subset")
"""ACTOR on a share of the training prompts: the least outlying ones, or any."""

STEERING = ("cae", "random-direction", "surgical", "scans", "inferaligner")
"""Those that change activations while the model runs; the others change weights."""

FINE_TUNING = ("sft", "crow")
"""Those that learn answers, and need no block to be chosen."""

SPECIAL = (*CORESETS, "crow")
"""Those that are not compared unless named; CROW is against refusals that a trigger causes."""


def methods(answers: Mapping[Prompt, Response]) -> dict[str, Method]:
    """Every method but the default; `answers` are what fine-tuning learns."""
    return {
        "actor": actor("boundary"),
        "paper": actor("paper"),
        "uniform": actor("uniform"),
        "sft": sft(answers),
        "cae": cae,
        "random-direction": random_direction,
        "surgical": surgical,
        "scans": scans,
        "inferaligner": inferaligner(),
        "upcore": actor("boundary", "upcore"),
        "random-subset": actor("boundary", "random"),
        "crow": crow(answers),
    }
