"""Time `fit` against what it replaces, on one model and one set of prompts, in one process.

    python -m benchmarks.bench_fit --model TESTBED --train reference_train.csv

- a forward pass: the whole model once over all prompts of the fit, in batches of 32 of like length, logits of the last
  position only;
- the plain loop: Algorithm 1 as printed, with transformers alone. Every step runs the whole model and reads
  `hidden_states`; per query, and in batches of the size that the rule trains in;
- supervised fine-tuning of short answers by `transformers.Trainer`: all parameters, and LoRA.

The plain loop and fine-tuning are timed for a part and scaled to the whole; the record says for how much.
"""

import argparse
import math
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

import actor_tune as at
from actor_tune.engines.local import local_engine
from actor_tune.engines.respond import respond
from actor_tune.models.activations import forward, hidden_of
from actor_tune.models.chat import TokenIds, encode, pad, rows_by_length
from actor_tune.models.state import loaded, state_of
from actor_tune.repair import rules
from actor_tune.repair.direction import refusal_direction
from actor_tune.repair.method import FittedBlock, fit_block, prepare
from actor_tune.repair.train import batches_of_like_length

from .common import Record, environment, report, say, warm_up
from .fine_tuning import ANSWER_TOKENS, BATCH_SIZE, Example, fine_tuning

FORWARD_BATCH = 32
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
    settings = at.Settings("boundary", starter=not arguments.no_starter)  # whose targets the plain loop has too
    report(measure, arguments.model, arguments.train, settings, arguments.plain_epochs, arguments.sft_steps)


def measure(model: str, train: Path, settings: at.Settings, plain_epochs: int, sft_steps: int | None) -> Record:
    """Everything, in the order: fit, forward pass, plain loops, fine-tuning."""
    given = at.read(train)
    split = prepare(given, settings)
    everything = split.train + split.validation
    chat_model = at.load(model)
    token_ids = chat_model.encode(everything)
    record: Record = {
        "benchmark": "fit",
        **environment(),
        "model": {"name": Path(model).name, "dtype": chat_model.computed_in, "blocks": len(chat_model.blocks)},
        "prompts": {"given": len(given), "train": len(split.train), "validation": len(split.validation)},
    }
    record["model"]["parameters"] = chat_model.model.num_parameters()
    record["prompts"]["tokens"] = sum(map(len, token_ids))
    warm_up(chat_model, given)
    say(f"fit on {len(everything)} prompts")
    start = time.perf_counter()
    block = fit_block(chat_model, given, settings)
    seconds = time.perf_counter() - start
    trained = sum(block.seconds[name] for name in STAGES_OF_TRAINING)
    record["fit"] = {"seconds": seconds, "stages": block.seconds, "layer": block.layer, "train_seconds": trained}

    say(f"fit took {seconds:.1f} s; one forward pass")
    forward_seconds, activations = forward_pass(chat_model, token_ids, block.layer)
    record["forward_pass"] = {"seconds": forward_seconds, "batch_size": FORWARD_BATCH}
    record["forward_passes"] = seconds / forward_seconds

    loops = plain_loops(chat_model, split.train, activations[: len(split.train)], block, plain_epochs)
    record["plain_loop"] = loops
    for loop, ending in ((loops["per_query"], ""), (loops["batched"], "_batched")):
        headless = loop["seconds"] - loop["head_seconds_per_epoch"] * loop["epochs"]
        record[f"speedup_vs_plain_loop{ending}"] = loop["seconds"] / seconds
        record[f"speedup_vs_plain_loop{ending}_like_for_like"] = loop["seconds"] / trained
        record[f"speedup_vs_plain_loop{ending}_without_head"] = headless / seconds

    examples = sft_examples(chat_model, split.train, sft_steps)
    record["sft"] = fine_tuning(chat_model, examples, len(split.train))
    record["speedup_vs_sft"] = min(record["sft"][way]["seconds"] for way in ("full", "lora")) / seconds
    return record


@torch.no_grad()
def forward_pass(chat_model: at.ChatModel, token_ids: list[TokenIds], layer: int) -> tuple[float, torch.Tensor]:
    """Seconds of one pass over all prompts, and block `layer`'s last-token output: (prompt, d_model) float32, CPU."""
    order: list[int] = []
    parts: list[torch.Tensor] = []
    start = time.perf_counter()
    with chat_model.blocks[layer].register_forward_hook(
        lambda *call: parts.append(hidden_of(call[2])[:, -1].float().cpu())
    ):
        for rows in rows_by_length(token_ids, FORWARD_BATCH):
            forward(chat_model, pad(token_ids, rows, chat_model.pad_id, chat_model.device)).cpu()
            order += rows
    return time.perf_counter() - start, torch.cat(parts)[torch.tensor(order).argsort()]


def plain_loops(
    chat_model: at.ChatModel,
    prompts: list[at.Prompt],
    activations: torch.Tensor,
    fitted: FittedBlock,
    epochs_timed: int,
) -> Record:
    """The plain loop on `prompts`, with the targets that `fit` has for their `activations`, both ways."""
    kinds = rules.kind_codes([prompt.kind for prompt in prompts])
    direction = refusal_direction(activations[kinds == rules.HARMFUL], activations[kinds == rules.HARMLESS])
    targets = rules.boundary_targets(activations, kinds, direction, rules.BOUNDARY_SHIFTS).to(chat_model.device)
    token_ids = chat_model.encode(prompts)
    block, loops = chat_model.blocks[fitted.layer], {}
    for name, schedule in (("per_query", rules.RULES["paper"].schedule), ("batched", fitted.schedule)):
        say(f"plain loop, batches of {schedule.batch_size}")
        batches = batches_of_like_length(list(map(len, token_ids)), schedule.batch_size, random.Random(0))
        random.Random(0).shuffle(batches)
        with loaded(block, state_of(block)), timed_module(chat_model.model.get_output_embeddings()) as head:
            start = time.perf_counter()
            inputs = [tensors(chat_model, token_ids, rows) for rows in batches * epochs_timed]
            wanted = [targets[rows] for rows in batches * epochs_timed]
            rate = schedule.learning_rate
            plain_loop(chat_model.model, fitted.layer, block, inputs, wanted, direction.length, rate)
            seconds = (time.perf_counter() - start) / epochs_timed
        loops[name] = {
            "batch_size": schedule.batch_size,
            "epochs": fitted.schedule.epochs,
            "epochs_timed": epochs_timed,
            "seconds_per_epoch": seconds,
            "head_seconds_per_epoch": sum(head) / epochs_timed,
            "seconds": seconds * fitted.schedule.epochs,
        }
    return loops


def tensors(chat_model: at.ChatModel, token_ids: list[TokenIds], rows: list[int]) -> dict[str, torch.Tensor]:
    """The prompts `rows`, left-padded, as the model takes them."""
    batch = pad(token_ids, rows, chat_model.pad_id, chat_model.device)
    return {name: getattr(batch, name) for name in ("input_ids", "attention_mask", "position_ids")}


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
        loss = rules.distance_loss(hidden_states[layer + 1][:, -1].float(), target, length).mean()
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
    with (
        module.register_forward_pre_hook(lambda *_: started.append(time.perf_counter())),
        module.register_forward_hook(lambda *_: seconds.append(time.perf_counter() - started.pop())),
    ):
        yield seconds


def sft_examples(chat_model: at.ChatModel, prompts: list[at.Prompt], steps: int | None) -> list[Example]:
    """Some of `prompts`, for so many steps, with answers: a fixed refusal if harmful, else what the model answers."""
    per_epoch = math.ceil(len(prompts) / BATCH_SIZE)
    steps = min(per_epoch, steps or max(12, per_epoch // 10))
    chosen = random.Random(0).sample(prompts, min(len(prompts), steps * BATCH_SIZE))
    say(f"answers to learn, for {len(chosen)} prompts")
    benign = [prompt for prompt in chosen if prompt.kind != "harmful"]
    own = {answer.prompt: answer.text for answer in respond(local_engine(chat_model), benign, ANSWER_TOKENS)}
    tokenizer, examples = chat_model.tokenizer, []
    for prompt, prompt_ids in zip(chosen, encode(tokenizer, chosen), strict=True):
        answer_ids = tokenizer(own.get(prompt, REFUSAL), add_special_tokens=False)["input_ids"][: ANSWER_TOKENS - 1]
        answer_ids = [*answer_ids, tokenizer.eos_token_id]
        examples.append({"input_ids": prompt_ids + answer_ids, "answer_ids": answer_ids})
    return examples


if __name__ == "__main__":
    main()
