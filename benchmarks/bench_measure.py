"""Answers per second: the engine that `actor measure` uses against plain `model.generate` of transformers.

    python -m benchmarks.bench_measure --model FOLDER

The same prompts, dtype and limit of new tokens for all, greedy, in one process. `generate` gets the prompts as a user
would give them: in their order, padded on the left by the tokenizer, in batches of fixed size. Every contender runs
once a round, in another order each time, and its fastest round counts; batches of one are so slow that they get a
sample of the prompts.
"""

import argparse
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

import actor_tune as at
from actor_tune.engines.local import local_engine
from actor_tune.engines.respond import respond

from .common import Record, environment, report, say

FIXED_SIZES = (8, 16, 32, 64, 128)
OURS, ALONE = "actor measure", "generate 1"

Contender = Callable[[Sequence[at.Prompt]], list[str]]
"""A way to answer prompts, which returns the texts in their order."""


def main() -> None:
    """Run all rounds and report what they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder or Hub id")
    parser.add_argument("--prompts", help="as of `actor measure`; default: built-in held-out starter prompts")
    parser.add_argument("--count", type=int, default=128, help="prompts, drawn at random")
    parser.add_argument("--alone", type=int, default=32, help="of these, how many for batches of one")
    parser.add_argument("--tokens", type=int, default=32, help="new tokens at most")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto")
    parser.add_argument("--device", default="cpu")
    report(measure, parser.parse_args())


def measure(arguments: argparse.Namespace) -> Record:
    """All rounds."""
    chat_model = at.load(arguments.model, at.Placement(arguments.device, arguments.dtype))
    prompts = at.read(arguments.prompts) if arguments.prompts else at.starter("held_out")
    prompts = random.Random(0).sample(list(dict.fromkeys(prompts)), min(arguments.count, len(prompts)))
    sizes = [1, *(size for size in FIXED_SIZES if size < 2 * len(prompts))]
    contenders: dict[str, Contender] = {OURS: partial(engine_texts, chat_model, arguments.tokens)}
    contenders |= {f"generate {size}": partial(generate_texts, chat_model, arguments.tokens, size) for size in sizes}
    for name, contender in contenders.items():  # the first passes of a process are slower
        if name != ALONE:
            contender(prompts[:8])
    asked = dict.fromkeys(contenders, prompts) | {ALONE: prompts[: arguments.alone]}
    seconds, texts = run_rounds(contenders, asked, arguments.rounds)
    return {
        "benchmark": "measure",
        "model": Path(arguments.model).name,
        "dtype": chat_model.computed_in,
        "prompts": len(prompts),
        "prompts_of_batch_1": len(asked[ALONE]),
        "max_new_tokens": arguments.tokens,
        "rounds": arguments.rounds,
        **speeds({name: len(asked[name]) / min(taken) for name, taken in seconds.items()}),
        **agreement(asked[ALONE], texts[ALONE], texts[OURS][: len(asked[ALONE])]),
        "seconds": {name: [round(each, 2) for each in taken] for name, taken in seconds.items()},
        **environment(),
    }


def engine_texts(chat_model: at.ChatModel, new_tokens: int, prompts: Sequence[at.Prompt]) -> list[str]:
    """The engine's answers, with its own default for how many at a time."""
    return [response.text for response in respond(local_engine(chat_model), prompts, new_tokens)]


@torch.inference_mode()
def generate_texts(chat_model: at.ChatModel, new_tokens: int, size: int, prompts: Sequence[at.Prompt]) -> list[str]:
    """The answers of `model.generate`, in batches of `size`."""
    tokenizer: Any = chat_model.tokenizer
    model: Any = chat_model.model
    tokenizer.padding_side = "left"
    texts: list[str] = []
    for start in range(0, len(prompts), size):
        inputs = tokenizer.apply_chat_template(
            [prompt.messages() for prompt in prompts[start : start + size]],
            add_generation_prompt=True,
            padding=True,
            return_dict=True,
            return_tensors="pt",
        ).to(chat_model.device)
        output = model.generate(**inputs, max_new_tokens=new_tokens, do_sample=False, pad_token_id=chat_model.pad_id)
        texts += tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts


def run_rounds(
    contenders: dict[str, Contender], asked: dict[str, list[at.Prompt]], rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[str]]]:
    """Seconds of every round, and the last texts, of each contender by name."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    texts = {}
    for number in range(rounds):
        for name in random.Random(number).sample(list(contenders), len(contenders)):
            begun = time.perf_counter()
            texts[name] = contenders[name](asked[name])
            seconds[name].append(time.perf_counter() - begun)
            say(f"round {number + 1}: {name}: {len(asked[name]) / seconds[name][-1]:.2f} answers a second")
    return seconds, texts


def speeds(rates: dict[str, float]) -> Record:
    """Answers a second by contender, and what they are to each other."""
    fixed = {name.split()[-1]: rate for name, rate in rates.items() if name not in (OURS, ALONE)}
    best = max(fixed, key=lambda size: fixed[size])
    return {
        "answers_per_second": round(rates[OURS], 3),
        "generate_batch_1": round(rates[ALONE], 3),
        "generate_best_fixed": round(fixed[best], 3),
        "best_fixed_size": int(best),
        "generate_fixed": {size: round(rate, 3) for size, rate in fixed.items()},
        "speedup_vs_best_fixed": round(rates[OURS] / fixed[best], 2),
        "speedup_vs_batch_1": round(rates[OURS] / rates[ALONE], 2),
    }


def agreement(prompts: Sequence[at.Prompt], alone: Sequence[str], ours: Sequence[str]) -> Record:
    """The shares of answers, 0..1, that are the same as those given one at a time, and of equal verdicts."""
    pairs = list(zip(prompts, alone, ours, strict=True))
    verdicts = at.judge([at.Exchange(prompt.text, text) for prompt, *texts in pairs for text in texts])
    outcomes = [verdict.outcome for verdict in verdicts]
    same = sum(one == other for one, other in zip(outcomes[::2], outcomes[1::2], strict=True))
    return {
        "equal_texts": round(sum(one == other for _, one, other in pairs) / len(pairs), 4),
        "equal_verdicts": round(same / len(pairs), 4),
    }


if __name__ == "__main__":
    main()
