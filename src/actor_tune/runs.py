"""What a fit leaves on disk: patch, model, direction and positions, and `run.json` last of all."""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import save_file

from .card import write_card
from .checkpoint import checkpoint_names, save_merged, save_patch
from .errors import UserError
from .files import replacing, write_json, write_jsonl
from .fit import BOUNDARY_SHIFTS, PAPER_ALPHA, UNIFORM_ALPHA, Fit, Rule, Settings
from .gate import gate_json
from .guard import Guarded
from .model import ChatModel, weights_hash
from .presets import parse_prompts_option
from .prompts import KINDS, Prompt, fingerprint, of_kind, prompt_json, prompt_of, starter_prompts
from .tables import read_text

Export = Literal["merged", "patch", "none"]

STRENGTH_OF: dict[Rule, dict[str, Any]] = {
    "boundary": {"shifts": asdict(BOUNDARY_SHIFTS)},
    "paper": {"alpha": PAPER_ALPHA},
    "uniform": {"alpha": UNIFORM_ALPHA},
}

POSITIONS_FILE = "positions.json"

VERSIONS_OF = ("actor-tune", "torch", "transformers", "safetensors", "scikit-learn")


def save_run(
    folder: Path,
    chat_model: ChatModel,
    result: Fit,
    settings: Settings,
    given: list[Prompt],
    export: Export,
    guarded: Guarded | None,
    command: str,
    written: bool,
) -> None:
    """Write the run; where `run.json` is, the run is whole.

    **Arguments:**

    - `given`: the prompts as the user gave them; `result.prompts` may have guards added.
    - `export`: "merged" writes patch and model, "patch" the patch alone, "none" neither.
    - `guarded`: the safety gate and its answers, written to `guard.jsonl`; None where nothing had changed.
    - `command`: as it was typed.
    - `written`: False where patch and model are withheld all the same, as unsafe.
    """
    base_hash = weights_hash(chat_model.folder)
    tensors = checkpoint_names(chat_model, result.layer, result.state)
    safety = " ".join(filter(None, [result.failure, guarded.gate.sentence if guarded else None]))
    if written and export != "none":
        save_patch(folder / "patch.safetensors", tensors, result.layer, chat_model.name, base_hash, safety)
    if written and export == "merged":
        save_merged(chat_model.folder, tensors, folder / "model")
        gate = guarded.gate if guarded else None
        write_card(folder / "model", chat_model.folder, chat_model.name, settings.rule, result, gate)
    with replacing(folder / "direction.safetensors") as temporary:
        direction = {"vector": result.direction.vector, "origin": result.direction.origin}
        save_file(direction, temporary, metadata={"layer": str(result.layer), "base_sha256": base_hash})
    write_json(folder / POSITIONS_FILE, positions_json(result))
    if guarded:
        write_jsonl(folder / "guard.jsonl", guard_json(guarded))
    record = run_json(chat_model, result, settings, given, export, base_hash)
    gate_record = guarded and gate_json(guarded.gate)
    write_json(folder / "run.json", record | {"gate": gate_record, "command": command, "written": written})


def trained_prompts(model: str, sources: Sequence[str]) -> list[Prompt]:
    """The prompts that `model` was trained on, as far as is known.

    **Arguments:**

    - `sources`: run folders and files of prompts. The run that `model` lies in is known without.

    **Raises:** `UserError` when a source is neither.
    """
    folders = [Path(source) for source in sources if Path(source).is_dir()]
    own = Path(model).resolve().parent
    if (own / POSITIONS_FILE).is_file() and (own / "run.json").is_file():
        folders.append(own)
    prompts = [prompt for source in sources if not Path(source).is_dir() for prompt in parse_prompts_option(source)]
    for folder in folders:
        if not (folder / POSITIONS_FILE).is_file():
            raise UserError(f"--trained-on {folder}", f"no {POSITIONS_FILE}", "the folder of a fit", "name a file")
        rows = json.loads(read_text(folder / POSITIONS_FILE))
        prompts += [prompt_of(row) for row in rows]
    return prompts


def guard_json(guarded: Guarded) -> list[dict[str, Any]]:
    """Each held-out harmful prompt with both answers and verdicts."""
    rows = zip(guarded.before, guarded.after, guarded.verdicts_before, guarded.verdicts_after, strict=True)
    return [
        {
            "prompt": before.prompt.text,
            "set": before.prompt.set,
            "before": before.text,
            "after": after.text,
            "verdict_before": old.outcome,
            "verdict_after": new.outcome,
        }
        for before, after, old, new in rows
    ]


def positions_json(result: Fit) -> list[dict[str, Any]]:
    """Each prompt's position along the direction, before and after."""
    rows = zip(result.prompts, result.validation, result.before, result.after, strict=True)
    return [
        {
            **prompt_json(prompt),
            "part": "validation" if validation else "train",
            "before": before,
            "after": after,
        }
        for prompt, validation, before, after in rows
    ]


def run_json(
    chat_model: ChatModel,
    result: Fit,
    settings: Settings,
    given: list[Prompt],
    export: Export,
    base_hash: str,
) -> dict[str, Any]:
    """Everything needed to say what was run and to run it again."""
    return {
        "schema": 1,
        "model": {"name": chat_model.name, "sha256": base_hash, "blocks": len(chat_model.blocks)},
        "placement": asdict(chat_model.placement),
        "computed_in": chat_model.computed_in,
        "settings": asdict(settings) | {"export": export},
        "training": asdict(result.schedule) | STRENGTH_OF[settings.rule],
        "layer": result.layer,
        "scan": None
        if result.scan is None
        else [asdict(block) | {"effect": block.effect} for block in result.scan.blocks],
        "prompts": {
            kind: {"n": len(of_kind(given, kind)), "sha256": fingerprint(of_kind(given, kind))} for kind in KINDS
        },
        "starter_sha256": fingerprint(starter_prompts("train")) if settings.starter else None,
        "trained_on": len(result.validation) - sum(result.validation),
        "validated_on": sum(result.validation),
        "direction_length": result.direction.length,
        "epochs": [asdict(epoch) for epoch in result.epochs],
        "trials": [asdict(trial) for trial in result.trials],
        "strength": result.chosen.strength,
        "failure": result.failure,
        "warnings": result.warnings,
        "seconds": result.seconds,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Of this package, the libraries that decide numbers, and Python."""
    return {name: version(name) for name in VERSIONS_OF} | {"python": platform.python_version()}
