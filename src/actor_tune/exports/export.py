"""A run, exported: written, asked the gate's prompts, and kept where it may be given out."""

from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from ..engines.openai import openai_engine
from ..errors import UserError, require_package
from ..models.model import DEFAULT_PLACEMENT
from ..models.patched import CARD_FILE
from ..models.placement import Placement
from ..records.export import ADAPTER_ERROR, Checked, Export
from ..records.file import read
from ..records.lineage import check_safe
from ..storage.folders import building, check_new
from ..storage.model_folder import public_name
from ..storage.versions import versions
from . import gguf, ollama, peft, vllm
from .check import Answering, Made, check
from .source import Source, open_source, with_warning

Target = Literal["peft", "gguf", "ollama", "vllm"]
TARGETS: tuple[Target, ...] = get_args(Target)


def export(
    run: str | Path,
    to: Target,
    output_dir: str | Path,
    base: str | None = None,
    error: float = ADAPTER_ERROR,
    whole_modules: bool = False,
    llama_cpp: str | Path | None = None,
    quantize: str | None = None,
    limit: int | None = None,
    allow_unsafe: bool = False,
    placement: Placement = DEFAULT_PLACEMENT,
) -> Export:
    """Write the trained model of a fit for another program, and ask what was written the gate's prompts.

    What the gate has not decided about, because too few prompts were asked or nothing here can ask it, is written, and
    does not count as passed until `check_served` has asked enough.

    ```python
    exported = at.export("run", "peft", "adapter", error=0.1, whole_modules=True)
    exported.low_rank.rank, exported.checked.sentence
    ```

    **Arguments:**

    - `run`: the folder of the fit; `base`: where the model that was trained is now; None: where its record says.
    - `to`: `peft` (an adapter, also for vLLM), `gguf`, `ollama`, or `vllm` (a whole folder).
    - `error`, `whole_modules`: of `peft`: how far the adapter may be from the change, 0..1, and whether modules that
      are not linear are kept whole, which vLLM does not take.
    - `llama_cpp`, `quantize`: of `gguf` and `ollama`: llama.cpp's folder, and how to pack the file, as `Q4_K_M`.
    - `limit`: at most so many of the gate's prompts are asked; 0: none.
    - `allow_unsafe`: write it even where the fit or what was exported does not pass the gate.

    **Raises:** `UnsafeError` when one of them does not pass; `UserError` when `run` is no run with a patch, the model
    that was trained is not to be had, a program is missing or cannot, or `output_dir` is not new or empty.
    """
    if to not in TARGETS:
        raise UserError(f"`to={to}`", "no such target", f"one of {', '.join(TARGETS)}", "correct the name")
    if to == "peft":
        require_package("`to=peft`", "peft", "testbed")
    source, where = open_source(Path(run), base, allow_unsafe), Path(output_dir)
    check_new(where)
    llama = Path(llama_cpp) if llama_cpp else None
    with building(where) as new:
        if to == "peft":
            made = peft.write(source, new, error, whole_modules, placement)
        elif to == "vllm":
            made = vllm.write(source, new, where, placement)
        else:
            write = gguf.write if to == "gguf" else ollama.write
            made = write(source, new, where, llama, quantize, placement.device)
        record = _with_check(_record(source, to, made), source, *_asked(source, made, limit))
        check_safe(where, _found(record, source), allow_unsafe)
        _save(record, source, new)
    return record


def check_served(
    run: str | Path,
    to: Target,
    folder: str | Path,
    base_url: str,
    model: str | None = None,
    limit: int | None = None,
    allow_unsafe: bool = False,
) -> Export:
    """Ask a server of OpenAI's protocol, which serves what `export` wrote into `folder`, the gate's prompts.

    What the gate decides takes the place of what the export's record said. Too few prompts for that leave it as it is.

    ```python
    at.check_served("run", "peft", "adapter", "http://127.0.0.1:8000/v1", "actor").checked.sentence
    ```

    **Arguments:**

    - `run`, `to`: the fit that was exported, and for what.
    - `model`: the name that the server knows it by; None: the only one that it lists.
    - `limit`: 1 or more, and `allow_unsafe`: as of `export`.

    **Raises:** `UnsafeError` when it does not pass, which is on record then; `UserError` when `folder` has another
    run's export or none, or the server does not answer.
    """
    source, where = open_source(Path(run), None, allow_unsafe), Path(folder)
    record = read(Export, where)
    if record.patch_sha256 != source.patch_sha256:
        raise UserError(where, "the export of another run", f"that of {run}", "name the run that it was made of")
    if record.target != to:
        raise UserError(where, f"an export for {record.target}", f"one for {to}", f"say `to={record.target}`")
    if limit is not None and limit < 1:
        raise UserError(f"`limit={limit}`", "no prompts", "1 or more", "leave it out to ask all of the gate's")
    told, thought = source.run.chat_template_kwargs, source.max_reasoning_tokens
    engine = openai_engine(base_url, model, chat_template_kwargs=told, max_reasoning_tokens=thought)
    name = f"the server{f' as {model}' if model else ''}"
    found = check(source, Answering(engine, name), limit)
    if found.gate is None:
        return replace(record, checked=found)
    record = _with_check(record, source, found, None)
    _save(record, source, where)
    check_safe(where, _found(record, source), allow_unsafe)
    return record


def _record(source: Source, to: Target, made: Made) -> Export:
    return Export(
        target=to,
        base=public_name(source.base),
        base_sha256=source.patch.base_sha256,
        layer=source.patch.layer,
        patch_sha256=source.patch_sha256,
        passed=source.known.passed,
        reasons=source.known.reasons,
        files=made.files,
        low_rank=made.low_rank,
        notes=made.notes,
        tools=made.tools,
        versions=versions(),
    )


def _asked(source: Source, made: Made, limit: int | None) -> tuple[Checked | None, str | None]:
    """What the gate's prompts say of what was `made`; or why they were not asked."""
    if limit == 0:
        return None, "no prompts were to be asked"
    if not source.answers:
        return None, "the fit has no answers of the gate to compare with"
    if made.answering is None:
        return None, made.unchecked
    with made.answering() as answering:
        return check(source, answering, limit), None


def _with_check(record: Export, source: Source, checked: Checked | None, unchecked: str | None) -> Export:
    gate = checked.gate if checked else None
    if gate is None:
        asked = f"{checked.n} of its prompts were asked" if checked else unchecked
        reasons = [*source.known.reasons, f"What was exported was not put before the safety gate: {asked}."]
    else:
        reasons = [*source.known.reasons, *([] if gate.passed else [f"What was exported: {gate.sentence}"])]
    return replace(record, checked=checked, unchecked=unchecked, reasons=reasons, passed=not reasons)


def _found(record: Export, source: Source) -> list[str]:
    """What speaks against the export, without what is only not known yet."""
    return record.reasons if record.checked and record.checked.gate else source.known.reasons


def _save(record: Export, source: Source, folder: Path) -> None:
    """The record, what the model carries wherever it goes, and in its card, if any, what speaks against it."""
    known = source.known
    if record.checked and record.checked.gate:
        known = replace(known, gate=record.checked.gate)
    replace(known, passed=record.passed, reasons=record.reasons).save(folder)
    if (card := folder / CARD_FILE).is_file():
        with_warning(card, record.reasons)
    record.save(folder)
