"""What a fit leaves on disk: patch, model, direction and positions, and `run.json` last of all."""

import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import save_file

from .checkpoint import checkpoint_names, save_merged, save_patch
from .files import replacing, write_json
from .fit import BOUNDARY_SHIFTS, PAPER_ALPHA, UNIFORM_ALPHA, Fit, Rule, Settings
from .model import ChatModel, weights_hash
from .prompts import KINDS, Prompt, fingerprint, of_kind, starter_prompts

Export = Literal["merged", "patch", "none"]

STRENGTH_OF: dict[Rule, dict[str, Any]] = {
    "boundary": {"shifts": asdict(BOUNDARY_SHIFTS)},
    "paper": {"alpha": PAPER_ALPHA},
    "uniform": {"alpha": UNIFORM_ALPHA},
}

VERSIONS_OF = ("actor-tune", "torch", "transformers", "safetensors", "scikit-learn")


def save_run(
    folder: Path,
    chat_model: ChatModel,
    result: Fit,
    settings: Settings,
    given: list[Prompt],
    export: Export,
    written: bool,
) -> None:
    """Write the run; where `run.json` is, the run is whole.

    **Arguments:**

    - `given`: the prompts as the user gave them; `result.prompts` may have guards added.
    - `export`: "merged" writes patch and model, "patch" the patch alone, "none" neither.
    - `written`: False where patch and model are withheld all the same, as unsafe.
    """
    base_hash = weights_hash(chat_model.folder)
    tensors = checkpoint_names(chat_model, result.layer, result.state)
    if written and export != "none":
        save_patch(folder / "patch.safetensors", tensors, result.layer, chat_model.name, base_hash)
    if written and export == "merged":
        save_merged(chat_model.folder, tensors, folder / "model")
    with replacing(folder / "direction.safetensors") as temporary:
        direction = {"vector": result.direction.vector, "origin": result.direction.origin}
        save_file(direction, temporary, metadata={"layer": str(result.layer), "base_sha256": base_hash})
    write_json(folder / "positions.json", positions_json(result))
    write_json(
        folder / "run.json", run_json(chat_model, result, settings, given, export, base_hash) | {"written": written}
    )


def positions_json(result: Fit) -> list[dict[str, Any]]:
    """Each prompt's position along the direction, before and after."""
    rows = zip(result.prompts, result.validation, result.before, result.after, strict=True)
    return [
        {
            "prompt": prompt.text,
            "kind": prompt.kind,
            "set": prompt.set,
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
        "versions": {name: version(name) for name in VERSIONS_OF} | {"python": platform.python_version()},
    }
