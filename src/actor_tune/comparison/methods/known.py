"""The methods by name, in the order of tables."""

from dataclasses import dataclass

from ...prompts.prompt import KINDS, Kind
from ...repair.coreset import Selection
from .ablation import ablation
from .actor import actor
from .cae import cae, random_direction
from .crow import crow
from .inferaligner import inferaligner
from .method import Method
from .scans import scans
from .sft import sft
from .surgical import surgical

DEFAULT = "default"
"""The model as it is, which is measured in any case."""

CORESETS: dict[str, Selection] = {"upcore": "upcore", "random-subset": "random"}
"""ACTOR on a share of the training prompts: the least outlying ones, or any."""


@dataclass(frozen=True)
class NamedMethod:
    """A method to compare, one of `KNOWN` or another.

    - `learns`: the kinds of prompts that it learns answers to, by fine-tuning; it then needs no block to be chosen.
    - `steers`: it changes activations while the model runs; the others change weights.
    - `special`: it is not compared unless it is named.
    """

    name: str
    method: Method
    learns: tuple[Kind, ...] = ()
    steers: bool = False
    special: bool = False


KNOWN = {
    known.name: known
    for known in (
        NamedMethod("actor", actor()),  # by `boundary` or by `odds`, whichever suits the model
        NamedMethod("boundary", actor("boundary"), special=True),
        NamedMethod("odds", actor("odds"), special=True),
        NamedMethod("paper", actor("paper")),
        NamedMethod("uniform", actor("uniform")),
        NamedMethod("sft", sft, learns=KINDS),
        NamedMethod("cae", cae, steers=True),
        NamedMethod("random-direction", random_direction, steers=True),
        NamedMethod("surgical", surgical, steers=True),
        NamedMethod("scans", scans, steers=True),
        NamedMethod("inferaligner", inferaligner, steers=True),
        NamedMethod("ablation", ablation, steers=True, special=True),  # a control: what it costs in safety
        *(NamedMethod(name, actor(select=share), special=True) for name, share in CORESETS.items()),
        NamedMethod("crow", crow, learns=("harmless",), special=True),  # against refusals that a trigger causes
    )
}

METHODS = (DEFAULT, *(name for name, known in KNOWN.items() if not known.special))
"""Those that are compared where none is named."""

STEERING = tuple(name for name, known in KNOWN.items() if known.steers)
