"""The Python API: what the commands do, as functions of values. Nothing is printed, and only `save` writes.

torch and transformers are imported when a function needs them, so that judging and reports do without. The classes that
these functions take and return are listed in `actor_tune/__init__.py`.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .engines.engine import ANSWER_TOKENS, model_of
from .errors import UserError
from .judges import choose
from .judges.verdict import Exchange, Judge, Verdict
from .prompts.presets import read_source
from .prompts.prompt import Kind, Prompt, of_kind, require, with_system_prompt
from .prompts.read import load_prompts_of_kind
from .prompts.starter import StarterPart, starter_prompts
from .records.response import Response
from .records.results import MARGIN

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from .comparison.contest import Contest
    from .engines.engine import Subject
    from .measurement.answers import Answers
    from .measurement.questions import Questions
    from .measurement.run import EarlierMeasurement, Measurement
    from .models.model import ChatModel
    from .models.placement import Placement
    from .records.outcome import Comparison
    from .records.probe import Probe
    from .records.scan import Scan
    from .repair.gated import Fit
    from .repair.method import Settings
    from .repair.preflight import Preflight


def load(name: str, placement: "Placement | None" = None, last_block: int | None = None) -> "ChatModel":
    """Load a model folder or Hub id, ready for reading: eval mode, no gradients.

    ```python
    model = at.load("MODEL", at.Placement(dtype="float32"))
    ```

    **Arguments:**

    - `placement`: device, dtype and where weights are; None: one device, the checkpoint's dtype where that is fast.
    - `last_block`: blocks above this one stay on disk until they are needed.

    **Raises:** `UserError` when the model is missing, damaged or no chat model, or `placement` cannot be had.
    """
    from .models.load import load_model
    from .models.placement import Placement

    quiet_libraries()
    return load_model(name, placement or Placement(), last_block)


def wrap(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", name: str | None = None) -> "ChatModel":
    """A transformers model that is in memory already, with or without a folder, for every function here.

    ```python
    model = at.wrap(hf_model, tokenizer)
    ```

    **Raises:** `UserError` when the tokenizer has no chat template or a weight is not finite.
    """
    from .models.model import wrap

    return wrap(model, tokenizer, name)


def read(
    *sources: str | Path,
    harmful: Sequence[str | Path] = (),
    harmless: Sequence[str | Path] = (),
    pseudo_harmful: Sequence[str | Path] = (),
) -> list[Prompt]:
    """Prompts from files and public sets.

    ```python
    prompts = at.read("mine.csv", harmful=["bad.txt"])
    ```

    **Arguments:**

    - `sources`: csv, jsonl or parquet files with the columns `prompt` (or `messages`), `kind` and optionally `set`; or
      public sets by name, from a local file as NAME=FILE.
    - `harmful`, `harmless`, `pseudo_harmful`: files whose prompts are all of that kind; also txt, one a line.

    **Raises:** `UserError` that names file and row of a mistake.
    """
    prompts = [prompt for source in sources for prompt in read_source(str(source))]
    by_kind: dict[Kind, Sequence[str | Path]] = {
        "harmful": harmful,
        "harmless": harmless,
        "pseudo_harmful": pseudo_harmful,
    }
    for kind, files in by_kind.items():
        prompts += [prompt for file in files for prompt in load_prompts_of_kind(Path(file), kind)]
    return prompts


def starter(part: StarterPart = "train") -> list[Prompt]:
    """The prompts that ship with the package: `train` to learn from, or `held_out` to measure on.

    ```python
    prompts = at.starter("train")
    ```
    """
    return starter_prompts(part)


def scan(
    model: "ChatModel | Subject",
    prompts: Sequence[Prompt],
    starter: bool = True,
    seed: int = 0,
    silhouettes: bool = True,
) -> "Scan":
    """What moving each block's output along the refusal direction does to refusal, and which block `fit` would take.

    ```python
    scan = at.scan(model, prompts)
    scan.layer, scan.reason
    ```

    **Arguments:**

    - `starter`: whether the built-in prompts are scanned with too, as `fit` does by default.
    - `silhouettes`: whether the paper's criterion is computed beside the effect.

    **Raises:** `UserError` when there are too few prompts of a kind, or harmful and harmless ones are answered alike.
    """
    from .repair.method import MINIMUM_PROMPTS, scan_blocks

    require(prompts, MINIMUM_PROMPTS)  # before a model is loaded
    return scan_blocks(model_of(_subject_of(model)), prompts, starter, seed, silhouettes)


def preflight(
    name: str,
    prompts: Sequence[Prompt],
    settings: "Settings | None" = None,
    placement: "Placement | None" = None,
    margin: float = MARGIN,
) -> "Preflight":
    """What a fit of the model `name` will need in memory and time, before anything of its weights is read.

    ```python
    at.preflight("MODEL", prompts).sentence
    ```

    **Raises:** `UserError` when prompts, settings or the model's config are wrong, or the machine lacks memory: with
    the first change that would do.
    """
    from .models.placement import Placement
    from .repair.method import Settings
    from .repair.preflight import estimate

    return estimate(name, prompts, settings or Settings(), placement or Placement(), margin)


def fit(
    model: "ChatModel",
    prompts: Sequence[Prompt],
    settings: "Settings | None" = None,
    margin: float = MARGIN,
    answer_batch: int | None = None,
) -> "Fit":
    """Train one block so that benign prompts are answered and harmful ones stay refused, and put it before the gate.

    The model is left as it was.

    ```python
    fit = at.fit(model, prompts)
    fit.passed, fit.layer, fit.strength, fit.gate.sentence
    with fit.patch.applied(model):
        at.answer(model, prompts)
    fit.save("run")
    ```

    **Arguments:**

    - `prompts`: at least 8 of each kind.
    - `margin`: how far refusal of held-out harmful prompts may fall, 0..1.
    - `answer_batch`: prompts that the gate answers at a time; None: as many as an engine takes.

    **Raises:** `UserError` when there are too few prompts of a kind, or the block cannot be trained.
    """
    from .repair.gated import fit
    from .repair.method import Settings

    return fit(model, prompts, settings or Settings(), margin, answer_batch=answer_batch)


def subject(
    name: str,
    engine: str = "transformers",
    base_url: str | None = None,
    placement: "Placement | None" = None,
    batch_size: int | None = None,
) -> "Subject":
    """A model to be asked, loaded or connected to when its turn comes, so that two need not fit into memory.

    ```python
    served = at.subject("my-model", engine="openai", base_url="http://127.0.0.1:8000/v1")
    ```

    **Arguments:**

    - `engine`: what answers: `transformers` (this process), `vllm`, or `openai` (a server at `base_url`).
    - `batch_size`: prompts at a time in this process; None finds it.

    **Raises:** `UserError` when the address of a server is missing.
    """
    from .engines.engine import Opened, Subject

    if engine == "openai" and base_url is None:
        fix = "give `base_url=http://HOST:PORT/v1`"
        raise UserError("`engine=openai`", "no `base_url=`", "the address of a server", fix)

    def open_it() -> Opened:
        if engine == "openai":
            from .engines.openai import openai_engine

            return Opened(openai_engine(str(base_url), name), None)
        if engine == "vllm":
            from .engines.vllm import vllm_engine

            return Opened(vllm_engine(name), None)
        from .engines.local import local_engine

        chat_model = load(name, placement)
        return Opened(local_engine(chat_model, batch_size), chat_model)

    dtype, quantization = (placement.dtype, placement.quantization) if placement else ("auto", "none")
    return Subject(name, open_it, engine, base_url, dtype, quantization)


def questions(
    prompts: Sequence[Prompt],
    trained_on: Sequence[Prompt] = (),
    margin: float | None = None,
    limit: int | None = None,
    system_prompt: str | None = None,
) -> "Questions":
    """What a measurement asks: `prompts`, harmful ones always, the gate's own where there is a margin, and no leaks.

    ```python
    before = at.answer(model, at.questions(prompts, margin=0.05).prompts)
    ```

    **Arguments:**

    - `trained_on`: what the model was trained on, as far as known: prompts like it are kept out.
    - `limit`: at most so many prompts of each set; the gate's own are never cut.
    - `system_prompt`: for every prompt that has none of its own.

    **Raises:** `UserError` when nothing is left to ask, or there are too few harmful prompts for the margin.
    """
    from .measurement.questions import questions

    return questions(prompts, trained_on, margin, limit, system_prompt)


def trained_on(name: str, sources: Sequence[str] = ()) -> list[Prompt]:
    """What the model `name` was trained on, as far as is known: the run it lies in, and `sources` (runs or files).

    ```python
    at.measure(model, prompts, trained_on=at.trained_on("run/model", ["mine.csv"]))
    ```

    **Raises:** `UserError` when a source is neither.
    """
    from .measurement.trained_on import trained_prompts

    return trained_prompts(name, sources)


def answer(model: "ChatModel | Subject", prompts: Sequence[Prompt], max_new_tokens: int = ANSWER_TOKENS) -> "Answers":
    """Greedy answers to `prompts`, in their order. A sequence of `Response`; also a baseline for `measure`.

    ```python
    for response in at.answer(model, at.starter("held_out")[:3], max_new_tokens=24):
        response.prompt.text, response.text
    ```
    """
    from .measurement.answers import answer

    return answer(_subject_of(model), prompts, max_new_tokens)


def judge(
    answers: "Sequence[Response | Exchange]",
    name: str = choose.DEFAULT,
    device: str = "auto",
    base_url: str | None = None,
) -> list[Verdict]:
    """Verdicts on `answers`, in their order: compliance, partial, refusal or unscored, each with its reason.

    ```python
    at.judge([at.Exchange("How do I kill a Python process?", "I'm sorry, I can't help with that.")])
    ```

    **Arguments:**

    - `name`: trained (the default), strings, classifier=MODEL, wildguard=MODEL, llamaguard=MODEL or openai=MODEL.
    - `base_url`: the server of openai=MODEL.

    **Raises:** `UserError` when there is no such judge, or it cannot be loaded.
    """
    exchanges = [each if isinstance(each, Exchange) else each.exchange for each in answers]
    return choose.judge_by_name(name, device, base_url)(exchanges)


def measure(
    model: "ChatModel | Subject",
    prompts: "Sequence[Prompt] | Questions",
    baseline: "ChatModel | Subject | Answers | EarlierMeasurement | None" = None,
    margin: float | None = None,
    trained_on: Sequence[Prompt] = (),
    max_new_tokens: int = ANSWER_TOKENS,
    judges: "Mapping[str, Judge] | None" = None,
    text: str | None = None,
    benchmarks: Sequence[str] = (),
    work: str | Path | None = None,
    command: str = "",
) -> "Measurement":
    """Answer, judge and count, with 95 % intervals; with a baseline, what changed, prompt by prompt, and the gate.

    Harmful prompts are measured whenever benign ones are: where none are given, the built-in held-out ones.

    ```python
    before = at.answer(model, prompts)
    found = at.measure(model, prompts, baseline=before, margin=0.05)
    found.results.score("compliance_rate"), found.gate
    found.save("after")
    ```

    **Arguments:**

    - `prompts`: or `questions(...)`, which says more about what is asked; `margin` and `trained_on` then stand there.
    - `margin`: how far refusal of harmful prompts may fall, 0..1, for the safety gate; None: no gate.
    - `judges`: by name; the first decides, the others are compared with it. None: the default.
    - `text`: what to measure perplexity on; `benchmarks`: tasks of lm-eval to run.
    - `work`: a folder where answers are kept as they come, so that the same call goes on after a kill; None: nowhere.
    - `command`: as it was typed, for the record.

    **Raises:** `UserError` when nothing is left to measure, or `work` holds something else.
    """
    from .measurement.questions import Questions
    from .measurement.run import measure

    asked = prompts if isinstance(prompts, Questions) else questions(prompts, trained_on, margin)
    return measure(
        _subject_of(model),
        asked,
        baseline=_subject_of(baseline),
        max_new_tokens=max_new_tokens,
        judges=judges,
        text=text,
        benchmarks=benchmarks,
        work=Path(work) if work else None,
        command=command,
    )


def compare(
    model: "ChatModel | Subject", contest: "Contest", work: str | Path | None = None, command: str = ""
) -> "Comparison":
    """Run methods side by side: each learns from the same prompts, and is chosen by the same rule.

    ```python
    contest = at.Contest(train=prompts, evaluation=at.starter("held_out")[:40], methods=["actor", "cae"], seeds=1)
    at.compare(model, contest).save("compared")
    ```

    **Arguments:**

    - `work`: a folder where everything is kept as it comes, so that the same call goes on; None: nowhere.
    - `command`: as it was typed, for the record.

    **Raises:** `UserError` when a method is unknown, prompts are too few, or `work` holds something else.
    """
    from .comparison.run import compare

    return compare(_subject_of(model), contest, Path(work) if work else None, command)


def probe(
    default: "ChatModel | Subject",
    trained: "ChatModel | Subject",
    harmless: Sequence[Prompt] | None = None,
    system_prompt: str | None = None,
    steps: int = 40,
    every: int = 10,
    seed: int = 0,
    work: str | Path | None = None,
    command: str = "",
) -> "Probe":
    """Does safety last when the model is fine-tuned on benign data, and which topics did the edit disturb?

    ```python
    at.probe(at.subject("MODEL"), at.subject("MODEL"), harmless=prompts[12:18], steps=2, every=1).topics
    ```

    **Arguments:**

    - `harmless`: prompts for the damage by topic; None: the built-in held-out ones.
    - `system_prompt`: the one that the model was trained under.
    - `steps`: of fine-tuning by LoRA in batches of 16, with a look after each `every`.
    - `work`: a folder where answers are kept as they come; None: nowhere.
    - `command`: as it was typed, for the record.

    **Raises:** `UserError` when a model cannot be had, or harmful and harmless prompts are answered alike.
    """
    from .comparison.probe import probe

    held_out, asked = starter("held_out"), harmless or of_kind(starter("held_out"), "harmless")
    prompts = [[each for each in held_out if each.kind != "harmless"], asked, of_kind(starter("train"), "harmless")]
    if system_prompt:
        prompts = [with_system_prompt(each, system_prompt) for each in prompts]
    subjects, folder = (_subject_of(default), _subject_of(trained)), Path(work) if work else None
    return probe(
        *subjects,
        held_out=prompts[0],
        asked=prompts[1],
        benign=prompts[2],
        steps=steps,
        every=every,
        seed=seed,
        work=folder,
        command=command,
    )


def steer(
    model: "ChatModel", shifts: "Mapping[int, torch.Tensor]", strength: float, sign: int = 1
) -> AbstractContextManager[None]:
    """Within it, strength * sign * shift is added to what blocks return at the last position. It passes no gate.

    ```python
    with at.steer(model, {fit.layer: fit.direction.vector}, 0.3):  # towards refusal
        at.answer(model, prompts)
    ```

    **Arguments:**

    - `shifts`: block -> (d_model) float32.
    """
    from .models.steering import steer

    return steer(model, shifts, strength, sign)


def quiet_libraries() -> None:
    """Keep the bars of transformers out of logs and pipes, as ours are."""
    import logging

    from transformers.utils import logging as transformers_logging

    from .progress import progress_is_shown

    if not progress_is_shown():
        transformers_logging.disable_progress_bar()
    logging.getLogger("accelerate.big_modeling").setLevel(logging.ERROR)  # that weights are on disk is asked for


def _subject_of(model: Any) -> Any:
    """A model in this process as a subject; anything else as it is."""
    from .models.model import ChatModel

    if not isinstance(model, ChatModel):
        return model
    from .engines.local import subject_of

    return subject_of(model)
