"""Time `fit` against what it replaces, on one model and one set of prompts, in one process.

    python benchmarks/bench_fit.py --model TESTBED --train reference_train.csv

- a forward pass: the whole model once over all prompts of the fit, in batches of 32 of like length, logits of the last
  position only;
- the plain loop: Algorithm 1 as printed, with transformers alone. Every step runs the whole model and reads
  `hidden_states`; per query, and in batches of the size that the rule trains in;
- supervised fine-tuning of short answers by `transformers.Trainer`: all parameters, and LoRA.

The plain loop and fine-tuning are timed for a part and scaled to the whole; the record says for how much.
"""

import argparse
import copy
import math
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from common import Record, answers, environment, load, report, say, warm_up
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from actor_tune.activations import compact_head, hidden_of
from actor_tune.chat import encode, pad, rows_by_length
from actor_tune.direction import refusal_direction
from actor_tune.fit import BOUNDARY_SHIFTS, PAPER_SCHEDULE, Fit, Settings, fit, prepare
from actor_tune.lora import collator
from actor_tune.model import ChatModel
from actor_tune.prompts import Prompt, load_prompts
from actor_tune.targets import HARMFUL, HARMLESS, boundary_targets, distance_loss, kind_codes
from actor_tune.train import loaded, state_of

FORWARD_BATCH = 32
SFT_BATCH = 16
SFT_EPOCHS = 3
ANSWER_TOKENS = 16
REFUSAL = "I'm sorry, but I can't help with that. Please ask me about something else."
STAGES_OF_TRAINING = ("run blocks below", "train")


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a chat model, such as `actor testbed` builds")
    parser.add_argument("--train", type=Path, required=True, help="prompts as for `actor fit --prompts`")
    parser.add_argument("--plain-epochs", type=int, default=1, help="epochs of the plain loop to time")
    parser.add_argument("--sft-steps", type=int, help="steps of fine-tuning to time; else a tenth of an epoch, or 12")
    parser.add_argument("--no-starter", action="store_true", help="train on the given prompts alone")
    arguments = parser.parse_args()
    settings = Settings(starter=not arguments.no_starter)
    report(lambda: measure(arguments.model, arguments.train, settings, arguments.plain_epochs, arguments.sft_steps))


def measure(model: str, train: Path, settings: Settings, plain_epochs: int, sft_steps: int | None) -> Record:
    """Everything, in the order: fit, forward pass, plain loops, fine-tuning."""
    given = load_prompts(train)
    split = prepare(given, settings)
    everything = split.train + split.validation
    chat_model = load(model)
    token_ids = encode(chat_model.tokenizer, everything)
    record: Record = {
        "benchmark": "fit",
        **environment(),
        "model": {
            "name": Path(model).name,
            "blocks": len(chat_model.blocks),
            "parameters": chat_model.model.num_parameters(),
            "dtype": str(chat_model.model.dtype).removeprefix("torch."),
        },
        "prompts": {
            "given": len(given),
            "train": len(split.train),
            "validation": len(split.validation),
            "tokens": sum(map(len, token_ids)),
        },
    }
    warm_up(chat_model, given)
    say(f"fit on {len(everything)} prompts")
    start = time.perf_counter()
    result = fit(chat_model, given, settings)
    seconds = time.perf_counter() - start
    record["fit"] = {"seconds": seconds, "stages": result.seconds, "layer": result.layer}

    say(f"fit took {seconds:.1f} s; one forward pass")
    forward_seconds, activations = forward_pass(chat_model, token_ids, result.layer)
    record["forward_pass"] = {"seconds": forward_seconds, "batch_size": FORWARD_BATCH}
    record["forward_passes"] = seconds / forward_seconds

    loops = plain_loops(chat_model, split.train, activations[: len(split.train)], result, plain_epochs)
    record["plain_loop"] = loops
    trained = sum(result.seconds[name] for name in STAGES_OF_TRAINING)
    record["fit"]["train_seconds"] = trained
    for name, ending in (("per_query", ""), ("batched", "_batched")):
        record[f"speedup_vs_plain_loop{ending}"] = loops[name]["seconds"] / seconds
        record[f"speedup_vs_plain_loop{ending}_like_for_like"] = loops[name]["seconds"] / trained
        headless = loops[name]["seconds"] - loops[name]["head_seconds_per_epoch"] * loops[name]["epochs"]
        record[f"speedup_vs_plain_loop{ending}_without_head"] = headless / seconds

    record["sft"] = fine_tuning(chat_model, split.train, sft_steps)
    record["speedup_vs_sft"] = min(record["sft"][way]["seconds"] for way in ("full", "lora")) / seconds
    return record


@torch.no_grad()
def forward_pass(chat_model: ChatModel, token_ids: list[list[int]], layer: int) -> tuple[float, torch.Tensor]:
    """Seconds of one pass over all prompts, and block `layer`'s last-token output: (prompt, d_model) float32, CPU."""
    order: list[int] = []
    parts: list[torch.Tensor] = []
    block = chat_model.blocks[layer]
    handle = block.register_forward_hook(lambda *call: parts.append(hidden_of(call[2])[:, -1].float().cpu()))
    start = time.perf_counter()
    with compact_head(chat_model):
        for rows in rows_by_length(token_ids, FORWARD_BATCH):
            chat_model.model(**tensors(chat_model, token_ids, rows), use_cache=False, logits_to_keep=1).logits[0].cpu()
            order += rows
    seconds = time.perf_counter() - start
    handle.remove()
    return seconds, torch.cat(parts)[torch.tensor(order).argsort()]


def tensors(chat_model: ChatModel, token_ids: Sequence[list[int]], rows: list[int]) -> dict[str, torch.Tensor]:
    """The prompts `rows`, left-padded, as the model takes them."""
    batch = pad(token_ids, rows, chat_model.pad_id, chat_model.device)
    names = ("input_ids", "attention_mask", "position_ids")
    return {name: getattr(batch, name) for name in names}


def plain_loops(
    chat_model: ChatModel, prompts: list[Prompt], activations: torch.Tensor, result: Fit, epochs_timed: int
) -> Record:
    """The plain loop on `prompts`, with the targets that `fit` has for their `activations`, both ways."""
    kinds = kind_codes([prompt.kind for prompt in prompts])
    direction = refusal_direction(activations[kinds == HARMFUL], activations[kinds == HARMLESS])
    targets = boundary_targets(activations, kinds, direction, BOUNDARY_SHIFTS).to(chat_model.device)
    token_ids = encode(chat_model.tokenizer, prompts)
    schedule = result.schedule
    ways = {
        "per_query": (1, PAPER_SCHEDULE.learning_rate),
        "batched": (schedule.batch_size, schedule.learning_rate),
    }
    loops = {}
    for name, (batch_size, learning_rate) in ways.items():
        say(f"plain loop, batches of {batch_size}")
        shuffler = random.Random(0)
        lengths = [len(ids) for ids in token_ids]
        batches = [rows for _ in range(epochs_timed) for rows in random_batches(lengths, batch_size, shuffler)]
        block = chat_model.blocks[result.layer]
        with loaded(block, state_of(block)), timed_module(chat_model.model.get_output_embeddings()) as head:
            start = time.perf_counter()
            inputs = [tensors(chat_model, token_ids, rows) for rows in batches]
            wanted = [targets[rows] for rows in batches]
            losses = plain_loop(chat_model.model, result.layer, block, inputs, wanted, direction.length, learning_rate)
            seconds = (time.perf_counter() - start) / epochs_timed
        loops[name] = {
            "batch_size": batch_size,
            "epochs": schedule.epochs,
            "epochs_timed": epochs_timed,
            "seconds_per_epoch": seconds,
            "head_seconds_per_epoch": sum(head) / epochs_timed,
            "seconds": seconds * schedule.epochs,
            "loss_first_quarter": mean(losses[: math.ceil(len(losses) / 4)]),
            "loss_last_quarter": mean(losses[-math.ceil(len(losses) / 4) :]),
        }
    return loops


def random_batches(lengths: list[int], batch_size: int, shuffler: random.Random) -> list[list[int]]:
    """All rows once in random batches of like length; of one row each in random order."""
    rows = list(range(len(lengths)))
    shuffler.shuffle(rows)
    stretch = 8 * batch_size
    parts = [sorted(rows[start : start + stretch], key=lengths.__getitem__) for start in range(0, len(rows), stretch)]
    batches = [part[start : start + batch_size] for part in parts for start in range(0, len(part), batch_size)]
    shuffler.shuffle(batches)
    return batches


def plain_loop(
    model: Any,
    layer: int,
    block: nn.Module,
    inputs: list[dict[str, torch.Tensor]],
    targets: list[torch.Tensor],
    length: float,
    learning_rate: float,
) -> list[float]:
    """Algorithm 1 as a user of transformers writes it, a step for each of `inputs`. Returns each step's loss."""
    block.requires_grad_(True)
    optimizer = torch.optim.AdamW(block.parameters(), lr=learning_rate, weight_decay=0.0)
    losses = []
    for batch, target in zip(inputs, targets, strict=True):
        hidden_states = model(**batch, output_hidden_states=True, use_cache=False).hidden_states
        loss = distance_loss(hidden_states[layer + 1][:, -1].float(), target, length)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    block.requires_grad_(False)
    return losses


@contextmanager
def timed_module(module: nn.Module) -> Iterator[list[float]]:
    """Collect the seconds of each call of `module` on a processor."""
    seconds: list[float] = []
    started: list[float] = []
    before = module.register_forward_pre_hook(lambda *_: started.append(time.perf_counter()))
    after = module.register_forward_hook(lambda *_: seconds.append(time.perf_counter() - started.pop()))
    try:
        yield seconds
    finally:
        before.remove()
        after.remove()


def fine_tuning(chat_model: ChatModel, prompts: list[Prompt], steps: int | None) -> Record:
    """Seconds of three epochs of supervised fine-tuning on short answers to `prompts`, from `steps` timed ones."""
    per_epoch = math.ceil(len(prompts) / SFT_BATCH)
    steps = min(per_epoch, steps or max(12, per_epoch // 10))
    chosen = random.Random(0).sample(prompts, min(len(prompts), steps * SFT_BATCH))
    say(f"answers to learn, for {len(chosen)} prompts")
    examples = sft_examples(chat_model, chosen)
    record: Record = {"batch_size": SFT_BATCH, "epochs": SFT_EPOCHS, "steps": SFT_EPOCHS * per_epoch}
    for way in ("lora", "full"):
        say(f"fine-tuning, {way}, {steps} steps")
        model = trainable(chat_model.model, way)
        train_seconds(chat_model, model, examples[: 2 * SFT_BATCH])  # warm-up
        seconds = train_seconds(chat_model, model, examples) / steps
        record[way] = {
            "steps_timed": steps,
            "seconds_per_step": seconds,
            "seconds": seconds * record["steps"],
            "trainable": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        }
    return record


def trainable(model: Any, way: str) -> Any:
    """A copy of `model` to fine-tune: all parameters, or LoRA of rank 16 on all linear layers."""
    if way == "full":
        return copy.deepcopy(model).requires_grad_(True)
    from peft import LoraConfig, get_peft_model

    return get_peft_model(copy.deepcopy(model), LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"))


def sft_examples(chat_model: ChatModel, prompts: list[Prompt]) -> list[dict[str, list[int]]]:
    """Tokens of each prompt and its answer: a fixed refusal if harmful, else what the model itself answers."""
    asked = [row for row, prompt in enumerate(prompts) if prompt.kind != "harmful"]
    texts = [REFUSAL] * len(prompts)
    for row, text in zip(asked, answers(chat_model, [prompts[row] for row in asked], ANSWER_TOKENS), strict=True):
        texts[row] = text
    tokenizer = chat_model.tokenizer
    examples = []
    for prompt_ids, text in zip(encode(tokenizer, prompts), texts, strict=True):
        answer_ids = tokenizer(text, add_special_tokens=False)["input_ids"][: ANSWER_TOKENS - 1]
        answer_ids = [*answer_ids, tokenizer.eos_token_id]
        examples.append({"input_ids": prompt_ids + answer_ids, "answer_ids": answer_ids})
    return examples


def train_seconds(chat_model: ChatModel, model: Any, examples: list[dict[str, list[int]]]) -> float:
    """Seconds of one epoch on `examples`, from the first step's start to the last one's end."""
    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_arguments: Any, **_keywords: Any) -> None:
            times.append(time.perf_counter())

        on_step_end = on_step_begin

    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=SFT_BATCH,
            learning_rate=2e-5,
            train_sampling_strategy="group_by_length",
            remove_unused_columns=False,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=chat_model.device.type == "cpu",
        )
        trainer = Trainer(
            model, settings, data_collator=collator(chat_model.pad_id), train_dataset=examples, callbacks=[Clock()]
        )
        trainer.train()
    return times[-1] - times[0]


if __name__ == "__main__":
    main()
