"""Algorithm 1 on a GPU: seconds, use of the device and memory, beside supervised fine-tuning, on random weights.

    python -m benchmarks.bench_gpu --shape llama-2-7b --shape llama-3-8b

Weights are made on the device; nothing is read. For 640 prompts of 10 to 120 tokens: the blocks below l once, then
three epochs of block l alone with the paper's loss in batches of 20, and with the boundary rule's. Loading, the choice
of block and of strength are not in it. Fine-tuning (`transformers.Trainer`) is timed for a few steps of 16 prompts with
16 answer tokens and scaled to three epochs: all parameters in bfloat16 with AdamW, and LoRA where peft is installed.

Use of the device is 2 x parameters of the blocks below x real tokens / seconds, as a share of what a large bfloat16
multiplication reaches in the same run. It leaves out attention's own multiplications, so it is a lower bound.
"""

import argparse
import random
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import TypeVar

import torch

import actor_tune as at
from actor_tune.models.chat import TokenIds
from actor_tune.models.inputs import block_inputs
from actor_tune.repair.direction import refusal_direction
from actor_tune.repair.rules import HARMFUL, HARMLESS, RULES, RuleName, Schedule, kind_codes
from actor_tune.repair.train import block_outputs, train_block

from .common import Record, environment, now, peak_memory, report, reset_peak, say
from .fine_tuning import ANSWER_TOKENS, BATCH_SIZE, fine_tuning
from .random_models import SHAPES, byte_tokenizer, random_model, random_prompts

LAYER = 13
WARM_UP = 64  # prompts
SCHEDULES: dict[RuleName, Schedule] = {
    "paper": replace(RULES["paper"].schedule, batch_size=20, epochs=3),
    "boundary": replace(RULES["boundary"].schedule, epochs=3),
}
EXIT_NO_GPU = 2

Value = TypeVar("Value")


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: to try the program itself")
    parser.add_argument("--shape", choices=SHAPES, action="append", help="default: both of 7 and 8 billion")
    parser.add_argument("--prompts", type=int, default=640)
    parser.add_argument("--sft-steps", type=int, default=20, help="steps of fine-tuning to time")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.exit(EXIT_NO_GPU, "bench_gpu: no GPU that torch can use; nothing was measured\n")
    shapes = arguments.shape or ["llama-2-7b", "llama-3-8b"]
    report(measure, arguments.device, shapes, arguments.prompts, arguments.sft_steps)


def measure(device: str, shapes: list[str], prompts: int, sft_steps: int) -> Record:
    """Every shape."""
    # Many processors have no bfloat16 instructions, and there this only tries the program.
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    return {
        "benchmark": "gpu",
        **environment(),
        "device": device,
        "dtype": str(dtype).removeprefix("torch."),
        "matmul_flops": matmul_flops(device, dtype),
        "models": {name: of_shape(name, prompts, sft_steps, device, dtype) for name in shapes},
    }


def timed(work: Callable[[], Value]) -> tuple[Value, float]:
    """What `work` returns, and its seconds."""
    start = now()
    result = work()
    return result, now() - start


def matmul_flops(device: str, dtype: torch.dtype) -> float:
    """Operations a second of a large multiplication of matrices: the most that this device does in practice."""
    size, times = (8192, 50) if device == "cuda" else (512, 2)
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))

    def multiply() -> None:
        for _ in range(times):
            left @ right

    timed(multiply)
    return 2 * size**3 * times / timed(multiply)[1]


def of_shape(name: str, count: int, sft_steps: int, device: str, dtype: torch.dtype) -> Record:
    """Our training and fine-tuning of a model of the shape `name`."""
    shape = SHAPES[name]
    say(f"making {name}")
    reset_peak(device)
    chat_model = at.wrap(random_model(shape, device, dtype), byte_tokenizer(), "random weights")
    prompts = random_prompts(count)
    token_ids = chat_model.encode(prompts)
    record: Record = {
        "shape": asdict(shape),
        "weights_bytes": sum(weight.numel() * weight.element_size() for weight in chat_model.model.parameters()),
        "prompts": count,
        "tokens": sum(map(len, token_ids)),
        **one_block(chat_model, token_ids, kind_codes([prompt.kind for prompt in prompts])),
    }
    chooser, examples = random.Random(0), []
    for ids in chooser.choices(token_ids, k=sft_steps * BATCH_SIZE):
        answer = chooser.choices(range(256), k=ANSWER_TOKENS)
        examples.append({"input_ids": ids + answer, "answer_ids": answer})
    record["sft"] = fine_tuning(chat_model, examples, count)
    times = [record["sft"][way]["seconds"] for way in ("lora", "full") if way in record["sft"]]
    known = [seconds for seconds in times if seconds is not None]
    for rule in SCHEDULES:
        record[f"{rule}_speedup_vs_sft"] = min(known) / record[f"{rule}_seconds"] if known else None
    return record


def one_block(chat_model: at.ChatModel, token_ids: list[TokenIds], kinds: torch.Tensor) -> Record:
    """The blocks below once, and the training of one block by each rule."""
    device, layer = chat_model.device.type, min(LAYER, len(chat_model.blocks) // 2)
    everything, few = range(len(token_ids)), range(min(WARM_UP, len(token_ids)))
    block_inputs(chat_model, layer, token_ids[: len(few)])  # warm-up
    reset_peak(device)
    say(f"blocks below {layer}")
    inputs, prefix_seconds = timed(lambda: block_inputs(chat_model, layer, token_ids))
    below = sum(weight.numel() for block in chat_model.blocks[:layer] for weight in block.parameters())
    flops = 2 * below * sum(map(len, token_ids)) / prefix_seconds
    activations, activations_seconds = timed(lambda: block_outputs(chat_model, inputs))
    most = matmul_flops(device, chat_model.model.dtype)  # just now: others may use the machine too
    record: Record = {
        "layer": layer,
        "matmul_flops": most,
        "prefix_seconds": prefix_seconds,
        "prefix_flops": flops,
        "prefix_utilisation": flops / most,
        "activations_seconds": activations_seconds,
    }
    direction = refusal_direction(activations[kinds == HARMFUL], activations[kinds == HARMLESS])
    for rule, schedule in SCHEDULES.items():
        say(f"{schedule.epochs} epochs, {rule}")
        objective = RULES[rule].objective
        assert objective, rule
        loss = objective(activations, kinds, direction)
        ways = [
            partial(train_block, chat_model, inputs.select(rows), kinds[rows], direction, loss, schedule, seed=0)
            for rows in (few, everything)
        ]
        ways[0]()  # warm-up
        trained, seconds = timed(ways[1])
        record[f"{rule}_train_seconds"] = seconds
        record[f"{rule}_seconds"] = prefix_seconds + activations_seconds + seconds
        record[f"{rule}_losses"] = [epoch.loss for epoch in trained.epochs]
    return record | {"peak_bytes": peak_memory(device)}


if __name__ == "__main__":
    main()
