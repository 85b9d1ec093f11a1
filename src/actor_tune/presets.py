"""Named public prompt sets: where each is published, at which commit, and what its rows are.

Nothing is copied into this package. A preset is fetched with `datasets` at a pinned commit, or read from a file that
was downloaded by hand, in its publisher's own layout.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import UserError
from .prompts import Kind, Prompt, load_prompts
from .tables import Row, read_table


@dataclass(frozen=True)
class Part:
    """What a row's prompt is: its kind, and the set it is counted in."""

    kind: Kind
    set: str


Sorter = Callable[[Row], Part | None]
"""The part a row belongs to; None for rows that are left out."""


@dataclass(frozen=True)
class HubSource:
    """A data set on the Hugging Face Hub.

    - `gated`: its terms must be accepted on the Hub, and `hf auth login` run, before it can be fetched.
    """

    repository: str
    revision: str
    splits: tuple[str, ...]
    config: str | None = None
    gated: bool = False


@dataclass(frozen=True)
class GitHubSource:
    """A csv file in its publisher's repository on GitHub, for sets of which no Hub revision is known."""

    repository: str
    revision: str
    file: str


@dataclass(frozen=True)
class Preset:
    """A public prompt set.

    - `source`: pinned by the commit `source.revision`, 40 hexadecimal digits.
    - `columns`: the names its prompts have in the layouts that are in use; the first that a row has is read.
    - `sort`: the kind and set of a row.
    - `download`: the publisher's file to give by hand, as messages name it.
    """

    name: str
    source: HubSource | GitHubSource
    columns: tuple[str, ...]
    sort: Sorter
    licence: str
    download: str
    description: str


def load_preset(name: str, file: Path | None = None) -> list[Prompt]:
    """The prompts of the preset `name`: from `file` in its publisher's layout, else fetched at the pinned commit.

    **Raises:** `UserError` when there is no such preset, when `file` or a row of it cannot be read, or when the set
    cannot be fetched: no network, a gated set, or no package `datasets` (extra `hub`).
    """
    preset = PRESETS.get(name)
    if preset is None:
        raise UserError(f"preset {name}", "unknown", f"one of {', '.join(PRESETS)}", "correct the name")
    rows = read_table(file) if file else _fetch(preset)
    prompts = []
    for row in rows:
        part = preset.sort(row)
        if part:
            column = next((column for column in preset.columns if column in row.cells), preset.columns[0])
            prompts.append(Prompt(row.text(column), part.kind, part.set))
    if not prompts:
        found = f"none of {len(rows)} rows is used by the preset {name}"
        raise UserError(file or name, found, "at least one", f"download {preset.download} again")
    return prompts


def parse_prompts_option(value: str, option: str = "--prompts") -> list[Prompt]:
    """What one `--prompts`, or another `option`, names: a file ("mine.csv"), a preset ("xstest"), or a preset's file
    ("xstest=FILE").

    **Raises:** `UserError` as `load_prompts` and `load_preset`.
    """
    name, equals, file = value.partition("=")
    if name in PRESETS:
        if equals and not file:
            raise UserError(f"{option} {value}", "no file after =", f"{name}=FILE", f"name one, or leave out {equals}")
        return load_preset(name, Path(file) if file else None)
    path = Path(value)
    if not path.suffix or (equals and not path.exists()):
        expected = f"a file or a preset ({', '.join(PRESETS)})"
        raise UserError(f"{option} {value}", "neither a file nor a preset", expected, "correct the name")
    return load_prompts(path)


def _all_are(kind: Kind, set_name: str) -> Sorter:
    part = Part(kind, set_name)
    return lambda row: part


_XSTEST_SAFE = Part("pseudo_harmful", "xstest_safe")
_XSTEST_UNSAFE = Part("harmful", "xstest_unsafe")


def _xstest(row: Row) -> Part | None:
    if "label" in row.cells:
        return _by_label(row, "label", {"safe": _XSTEST_SAFE, "unsafe": _XSTEST_UNSAFE})
    # The first releases have no labels; their unsafe prompts are those of the types contrast_...
    return _XSTEST_UNSAFE if row.text("type").startswith("contrast") else _XSTEST_SAFE


def _phtest(row: Row) -> Part | None:
    # "controversial" prompts may rightly be refused, so that no answer to them is wrong.
    return _by_label(row, "Harmfulness", {"harmless": Part("pseudo_harmful", "phtest"), "controversial": None})


def _harmbench(row: Row) -> Part | None:
    harmful = Part("harmful", "harmbench")
    if "FunctionalCategory" not in row.cells:
        return harmful
    # Contextual behaviours are no requests without their context; copyright ones ask for texts, not for harm.
    return _by_label(row, "FunctionalCategory", {"standard": harmful, "contextual": None, "copyright": None})


def _jailbreakbench(row: Row) -> Part | None:
    parts = {"harmful": Part("harmful", "jbb_harmful"), "benign": Part("pseudo_harmful", "jbb_benign")}
    if "split" in row.cells:
        return _by_label(row, "split", parts)
    # Both of the publisher's files have the same columns; their names tell them apart.
    named = [part for label, part in parts.items() if label in row.path.stem.lower()]
    if len(named) != 1:
        expected = "`harmful` or `benign` in the name, or a column `split` that says so"
        raise UserError(row.path, "harmful or benign behaviours?", expected, "rename it as its publisher has it")
    return named[0]


def _by_label(row: Row, column: str, parts: Mapping[str, Part | None]) -> Part | None:
    label = row.text(column)
    if label not in parts:
        fix = "give the publisher's file"
        raise UserError(row.where, f"{column} {label!r}", f"one of {', '.join(parts)}", fix)
    return parts[label]


def _fetch(preset: Preset) -> list[Row]:
    option = f"--prompts {preset.name}"
    by_hand = f"download {preset.download} and give it as {option}=FILE"
    try:
        import datasets
    except ImportError:
        fix = f"run: pip install 'actor-tune[hub]', or {by_hand}"
        raise UserError(option, "presets cannot be fetched here", "the package datasets", fix) from None
    source = preset.source
    try:
        if isinstance(source, GitHubSource):
            url = f"https://raw.githubusercontent.com/{source.repository}/{source.revision}/{source.file}"
            return _rows(source.repository, datasets.load_dataset("csv", data_files=url, split="train"))
        rows = []
        for split in source.splits:
            table = datasets.load_dataset(source.repository, source.config, split=split, revision=source.revision)
            rows += _rows(source.repository, table, {"split": split})
        return rows
    except (OSError, ValueError) as error:  # no network, no access, or (ValueError) only other parts in the cache
        reason = str(error).split("\n")[0]
        found = f"{source.repository} at {source.revision[:8]} cannot be fetched ({reason})"
        terms = "accept its terms on the Hub and run `hf auth login`, or "
        gated = terms if isinstance(source, HubSource) and source.gated else ""
        raise UserError(option, found, "a connection to its publisher", gated + by_hand) from error


def _rows(origin: str, table: Iterable[dict[str, Any]], more: dict[str, str] | None = None) -> list[Row]:
    return [Row(Path(origin), number, {**cells, **(more or {})}) for number, cells in enumerate(table, start=1)]


_LIST = (
    Preset(
        "xstest",
        HubSource("Paul/XSTest", "f600c994b256f12867dfa5b3eb3d545a3e62f8b5", ("train",)),
        ("prompt",),
        _xstest,
        "CC-BY-4.0",
        "xstest_prompts.csv of Paul/XSTest on the Hugging Face Hub",
        "250 safe prompts of ten types that look unsafe, and 200 unsafe contrasts",
    ),
    Preset(
        "or-bench-hard-1k",
        HubSource("bench-llm/or-bench", "e36d8b80e81837c8a8f264bbb2a49f1b32c7e272", ("train",), "or-bench-hard-1k"),
        ("prompt",),
        _all_are("pseudo_harmful", "or_bench_hard_1k"),
        "CC-BY-4.0",
        "or-bench-hard-1k.csv of bench-llm/or-bench on the Hugging Face Hub",
        "1,319 generated benign prompts that strong models refuse",
    ),
    Preset(
        "oktest",
        GitHubSource("InvokerStark/OverKill", "9551a7ff7b2cb18d178e64fb5cc95e4684311b3b", "data/OKTest.csv"),
        ("prompt",),
        _all_are("pseudo_harmful", "oktest"),
        "none stated",
        "data/OKTest.csv of InvokerStark/OverKill on GitHub",
        "300 safe questions with words that sound harmful or rude",
    ),
    Preset(
        "phtest",
        GitHubSource(
            "umd-huang-lab/FalseRefusal", "b37fcd51d3e1e81ce74bdd5cf468a8bf87bc0fb8", "PHTest/dataset_v0.1.csv"
        ),
        ("Request",),
        _phtest,
        "MIT",
        "PHTest.csv of furonghuang-lab/PHTest on the Hugging Face Hub",
        "generated prompts that look harmful; those labelled harmless are used, the controversial ones left out",
    ),
    Preset(
        "advbench",
        HubSource("walledai/AdvBench", "9d4730540082fa4017450b65ca1c0e1d8d30446e", ("train",), gated=True),
        ("prompt", "goal"),
        _all_are("harmful", "advbench"),
        "MIT",
        "data/advbench/harmful_behaviors.csv of llm-attacks/llm-attacks on GitHub",
        "520 harmful instructions",
    ),
    Preset(
        "harmbench",
        GitHubSource(
            "centerforaisafety/HarmBench",
            "8e1604d1171fe8a48d8febecd22f600e462bdcdd",
            "data/behavior_datasets/harmbench_behaviors_text_all.csv",
        ),
        ("Behavior", "prompt"),
        _harmbench,
        "MIT",
        "data/behavior_datasets/harmbench_behaviors_text_all.csv of centerforaisafety/HarmBench on GitHub",
        "the 200 standard behaviours; contextual and copyright ones are left out",
    ),
    Preset(
        "jailbreakbench",
        HubSource(
            "JailbreakBench/JBB-Behaviors",
            "886acc352a31533ffbcf4ef22c744658688086fc",
            ("harmful", "benign"),
            "behaviors",
        ),
        ("Goal", "goal"),
        _jailbreakbench,
        "MIT",
        "data/harmful-behaviors.csv and data/benign-behaviors.csv of JailbreakBench/JBB-Behaviors on the Hugging Face "
        "Hub",
        "100 harmful behaviours, and 100 benign ones on the same topics",
    ),
    Preset(
        "strongreject",
        HubSource("walledai/StrongREJECT", "df54272b395ce9e584d2f8140519935425d8549f", ("train",), gated=True),
        ("prompt", "forbidden_prompt"),
        _all_are("harmful", "strongreject"),
        "MIT",
        "strongreject_dataset/strongreject_dataset.csv of alexandrasouly/strongreject on GitHub",
        "313 forbidden prompts in six categories",
    ),
)

PRESETS = {preset.name: preset for preset in _LIST}
"""Every preset by name."""
