"""Answers per second: the engine that `actor measure` uses against plain `model.generate` of transformers.

    python benchmarks/bench_measure.py --model FOLDER

The same prompts, dtype and limit of new tokens for all, greedy, in one process. `generate` gets the prompts as a user
would give them: in their order, padded on the left by the tokenizer, in batches of fixed size. Every contender runs
once a round, in another order each time, and its fastest round counts; batches of one are so slow that they get a
sample of the prompts. Progress goes to stderr, and to stdout one line of JSON.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import environment

from actor_tune.engines.local import local_engine
from actor_tune.judges.trained import judge_trained
from actor_tune.judges.verdict import Exchange
from actor_tune.model import ChatModel, load_model
from actor_tune.placement import Placement
from actor_tune.presets import parse_prompts_option
from actor_tune.prompts import Prompt, starter_prompts

FIXED_SIZES = (8, 16, 32, 64, 128)
OURS = "actor measure"


@dataclass(frozen=True)
class Contender:
    """A way to answer `prompts`, which returns the texts in their order."""

    name: str
    prompts: Sequence[Prompt]
    answer: Callable[[Sequence[Prompt]], list[str]]


def main() -> None:
    """Run all rounds and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder or Hub id")
    parser.add_argument("--prompts", help="as of `actor measure`; default: built-in held-out starter prompts")
    parser.add_argument("--count", type=int, default=128, help="prompts, drawn at random")
    parser.add_argument("--alone", type=int, default=32, help="of these, how many for batches of one")
    parser.add_argument("--tokens", type=int, default=32, help="new tokens at most")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()

    chat_model = load_model(arguments.model, Placement(arguments.device, arguments.dtype))
    prompts = parse_prompts_option(arguments.prompts) if arguments.prompts else starter_prompts("held_out")
    prompts = random.Random(0).sample(list(dict.fromkeys(prompts)), min(arguments.count, len(prompts)))
    dtype = str(chat_model.model.dtype).removeprefix("torch.")
    contenders = [
        Contender(OURS, prompts, lambda given: engine_texts(chat_model, given, arguments.tokens)),
        *(fixed(chat_model, prompts, size, arguments.tokens) for size in FIXED_SIZES if size < 2 * len(prompts)),
    ]
    alone = fixed(chat_model, prompts[: arguments.alone], 1, arguments.tokens)
    for contender in contenders:  # the first passes of a process are slower
        contender.answer(prompts[:8])
    seconds, texts = run_rounds([*contenders, alone], arguments.rounds)
    sys.stdout.write(json.dumps(summary(arguments, dtype, contenders, alone, seconds, texts)) + "\n")


def engine_texts(chat_model: ChatModel, prompts: Sequence[Prompt], new_tokens: int) -> list[str]:
    """The engine's answers, with its own default for how many at a time."""
    answers = sorted(local_engine(chat_model, None)(prompts, new_tokens), key=lambda answer: answer.row)
    return [answer.text for answer in answers]


def fixed(chat_model: ChatModel, prompts: Sequence[Prompt], size: int, new_tokens: int) -> Contender:
    """`model.generate` in batches of `size`."""
    return Contender(f"generate {size}", prompts, lambda given: generate_texts(chat_model, given, size, new_tokens))


@torch.inference_mode()
def generate_texts(chat_model: ChatModel, prompts: Sequence[Prompt], size: int, new_tokens: int) -> list[str]:
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


def run_rounds(contenders: Sequence[Contender], rounds: int) -> tuple[dict[str, list[float]], dict[str, list[str]]]:
    """Seconds of every round, and the last texts, of each contender by name."""
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    texts = {}
    for number in range(rounds):
        for contender in random.Random(number).sample(contenders, len(contenders)):
            begun = time.perf_counter()
            texts[contender.name] = contender.answer(contender.prompts)
            seconds[contender.name].append(time.perf_counter() - begun)
            rate = len(contender.prompts) / seconds[contender.name][-1]
            sys.stderr.write(f"round {number + 1}: {contender.name}: {rate:.2f} answers a second\n")
    return seconds, texts


def summary(
    arguments: argparse.Namespace,
    dtype: str,
    contenders: Sequence[Contender],
    alone: Contender,
    seconds: dict[str, list[float]],
    texts: dict[str, list[str]],
) -> dict[str, Any]:
    """The figures of the run."""
    rates = {each.name: len(each.prompts) / min(seconds[each.name]) for each in (*contenders, alone)}
    best = max((each.name for each in contenders if each.name != OURS), key=lambda name: rates[name])
    expected, found = texts[alone.name], texts[OURS][: len(alone.prompts)]
    verdicts = [
        judge_trained([Exchange(prompt.text, text) for prompt, text in zip(alone.prompts, answers, strict=True)])
        for answers in (expected, found)
    ]
    return {
        "benchmark": "measure",
        "model": Path(arguments.model).name,
        "dtype": dtype,
        "prompts": len(contenders[0].prompts),
        "prompts_of_batch_1": len(alone.prompts),
        "max_new_tokens": arguments.tokens,
        "rounds": arguments.rounds,
        "answers_per_second": round(rates[OURS], 3),
        "generate_batch_1": round(rates[alone.name], 3),
        "generate_best_fixed": round(rates[best], 3),
        "best_fixed_size": int(best.split()[-1]),
        "generate_fixed": {
            each.name.split()[-1]: round(rates[each.name], 3) for each in contenders if each.name != OURS
        },
        "speedup_vs_best_fixed": round(rates[OURS] / rates[best], 2),
        "speedup_vs_batch_1": round(rates[OURS] / rates[alone.name], 2),
        "equal_texts": share_equal(expected, found),
        "equal_verdicts": share_equal(*([verdict.outcome for verdict in each] for each in verdicts)),
        "seconds": {name: [round(each, 2) for each in taken] for name, taken in seconds.items()},
        **environment(),
    }


def share_equal(ours: Sequence[str], theirs: Sequence[str]) -> float:
    """The share of equal ones, 0..1."""
    return round(sum(one == other for one, other in zip(ours, theirs, strict=True)) / len(ours), 4)


if __name__ == "__main__":
    main()
