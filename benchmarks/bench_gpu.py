"""Algorithm 1 on a GPU: seconds, use of the device and memory, beside supervised fine-tuning, on random weights.

    python benchmarks/bench_gpu.py --shape llama-2-7b --shape llama-3-8b

Weights are made on the device; nothing is read. For 640 prompts of 10 to 120 tokens: the blocks below l once, then
three epochs of block l alone with the paper's loss in batches of 20, and with the boundary rule's. Loading, the choice
of block and of strength are not in it. Fine-tuning is timed for a few steps of 16 prompts with 16 answer tokens and
scaled to three epochs: all parameters in bfloat16 with AdamW, and LoRA where peft is installed.

Use of the device is 2 x parameters of the blocks below x real tokens / seconds, as a share of what a large bfloat16
multiplication reaches in the same run. It leaves out attention's own multiplications, so it is a lower bound.
"""

import argparse
import gc
import importlib.util
import random
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch
from common import (
    SHAPES,
    Record,
    byte_tokenizer,
    environment,
    in_memory,
    peak_rss,
    random_model,
    random_prompts,
    report,
    reset_peak,
    say,
)

from actor_tune.chat import encode, pad
from actor_tune.direction import refusal_direction
from actor_tune.fit import BOUNDARY_SCHEDULE, PAPER_SCHEDULE, Rule, objective
from actor_tune.inputs import block_inputs
from actor_tune.model import ChatModel
from actor_tune.targets import HARMFUL, HARMLESS, kind_codes
from actor_tune.train import LossFunction, Schedule, TrainedBlock, block_outputs, train_block

LAYER = 13
WARM_UP = 64  # prompts
EPOCHS = 3
SFT_BATCH, SFT_WARM_UP, ANSWER_TOKENS = 16, 2, 16
SCHEDULES: dict[Rule, Schedule] = {
    "paper": replace(PAPER_SCHEDULE, batch_size=20, epochs=EPOCHS),
    "boundary": replace(BOUNDARY_SCHEDULE, epochs=EPOCHS),
}
EXIT_NO_GPU = 2


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
    device = Device(arguments.device)
    report(
        lambda: {
            "benchmark": "gpu",
            **environment(),
            "device": arguments.device,
            "dtype": str(device.dtype).removeprefix("torch."),
            "matmul_flops": matmul_flops(device),
            "models": {name: measure(name, arguments.prompts, arguments.sft_steps, device) for name in shapes},
        }
    )


class Device:
    """Seconds and peak memory of work on a device."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.gpu = name == "cuda"
        # Many processors have no bfloat16 instructions, and there this only tries the program.
        self.dtype = torch.bfloat16 if self.gpu else torch.float32

    def timed(self, work: Callable[[], Any]) -> tuple[Any, float]:
        """What `work` returns, and its seconds, until the device has done it."""
        self._wait()
        start = time.perf_counter()
        result = work()
        self._wait()
        return result, time.perf_counter() - start

    def reset(self) -> None:
        """Free what is unused and let the peak begin anew."""
        gc.collect()
        if self.gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        else:
            reset_peak()

    def peak(self) -> int:
        """Most bytes of tensors on the GPU; on a processor, of the process."""
        return torch.cuda.max_memory_allocated() if self.gpu else peak_rss()

    def _wait(self) -> None:
        if self.gpu:
            torch.cuda.synchronize()


def matmul_flops(device: Device) -> float:
    """Operations a second of a large multiplication of matrices: the most that this device does in practice."""
    size, times = (8192, 50) if device.gpu else (512, 2)
    left, right = (torch.randn(size, size, device=device.name, dtype=device.dtype) for _ in range(2))

    def multiply() -> None:
        for _ in range(times):
            left @ right

    device.timed(multiply)
    return 2 * size**3 * times / device.timed(multiply)[1]


def measure(name: str, count: int, sft_steps: int, device: Device) -> Record:
    """Our training and fine-tuning of a model of the shape `name`."""
    shape = SHAPES[name]
    say(f"making {name}")
    device.reset()
    chat_model = in_memory(random_model(shape, device.name, device.dtype), byte_tokenizer())
    prompts = random_prompts(count)
    token_ids = encode(chat_model.tokenizer, prompts)
    record: Record = {
        "shape": asdict(shape),
        "weights_bytes": sum(weight.numel() * weight.element_size() for weight in chat_model.model.parameters()),
        "prompts": count,
        "tokens": sum(map(len, token_ids)),
        **one_block(chat_model, token_ids, kind_codes([prompt.kind for prompt in prompts]), device),
        "sft": fine_tuning(chat_model, token_ids, sft_steps, device),
    }
    times = [way["seconds"] for way in record["sft"].values() if way["seconds"] is not None]
    for rule in SCHEDULES:
        record[f"{rule}_speedup_vs_sft"] = min(times) / record[f"{rule}_seconds"] if times else None
    return record


def one_block(chat_model: ChatModel, token_ids: list[list[int]], kinds: torch.Tensor, device: Device) -> Record:
    """The blocks below once, and the training of one block by each rule."""
    layer = min(LAYER, len(chat_model.blocks) // 2)
    few = range(min(WARM_UP, len(token_ids)))
    block_inputs(chat_model, layer, token_ids[: len(few)])  # warm-up
    device.reset()
    say(f"blocks below {layer}")
    inputs, prefix_seconds = device.timed(lambda: block_inputs(chat_model, layer, token_ids))
    below = sum(weight.numel() for block in chat_model.blocks[:layer] for weight in block.parameters())
    flops = 2 * below * sum(map(len, token_ids)) / prefix_seconds
    activations, activations_seconds = device.timed(lambda: block_outputs(chat_model, inputs))
    record: Record = {
        "layer": layer,
        "prefix_seconds": prefix_seconds,
        "prefix_flops": flops,
        "prefix_utilisation": flops / matmul_flops(device),
        "activations_seconds": activations_seconds,
    }
    direction = refusal_direction(activations[kinds == HARMFUL], activations[kinds == HARMLESS])
    for rule, schedule in SCHEDULES.items():
        say(f"{schedule.epochs} epochs, {rule}")
        loss = objective(rule, activations, kinds, direction)

        def train(chosen: range, loss: LossFunction = loss, schedule: Schedule = schedule) -> TrainedBlock:
            return train_block(chat_model, inputs.select(chosen), kinds[chosen], direction, loss, schedule, seed=0)

        train(few)  # warm-up
        trained, seconds = device.timed(lambda train=train: train(range(len(token_ids))))
        record[f"{rule}_train_seconds"] = seconds
        record[f"{rule}_seconds"] = prefix_seconds + activations_seconds + seconds
        record[f"{rule}_losses"] = [epoch.loss for epoch in trained.epochs]
    record["peak_bytes"] = device.peak()
    return record


def fine_tuning(chat_model: ChatModel, token_ids: list[list[int]], steps: int, device: Device) -> Record:
    """Both ways of fine-tuning; `chat_model` is of no use afterwards."""
    record: Record = {}
    if importlib.util.find_spec("peft"):
        from peft import LoraConfig, get_peft_model

        options = LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")
        adapted = get_peft_model(chat_model.model, options)
        record["lora"] = sft_seconds(chat_model, adapted, token_ids, steps, device)
        adapted.unload()
    chat_model.model.requires_grad_(True)
    record["full"] = sft_seconds(chat_model, chat_model.model, token_ids, steps, device)
    return record


def sft_seconds(chat_model: ChatModel, model: Any, token_ids: list[list[int]], steps: int, device: Device) -> Record:
    """Seconds of three epochs, from `steps` timed ones on prompts drawn at random and batched by length."""
    chooser = random.Random(0)
    drawn = sorted(chooser.choices(token_ids, k=steps * SFT_BATCH), key=len)
    batches = [drawn[start : start + SFT_BATCH] for start in range(0, len(drawn), SFT_BATCH)]
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], 2e-5, fused=True)
    model.train()

    def step(batch: list[list[int]]) -> None:
        rows = [ids + chooser.choices(range(256), k=ANSWER_TOKENS) for ids in batch]
        padded = pad(rows, list(range(len(rows))), chat_model.pad_id, chat_model.device)
        labels = padded.input_ids.clone()
        labels[:, :-ANSWER_TOKENS] = -100
        model(input_ids=padded.input_ids, attention_mask=padded.attention_mask, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def run(batches: list[list[list[int]]]) -> None:
        for batch in batches:
            step(batch)

    device.reset()
    all_steps = EPOCHS * -(-len(token_ids) // SFT_BATCH)
    record: Record = {"batch_size": SFT_BATCH, "steps": all_steps, "steps_timed": len(batches), "seconds": None}
    try:
        run(batches[-SFT_WARM_UP:])
        say(f"fine-tuning, {len(batches)} steps")
        per_step = device.timed(lambda: run(batches))[1] / len(batches)
        record |= {"seconds_per_step": per_step, "seconds": per_step * all_steps, "peak_bytes": device.peak()}
    except torch.OutOfMemoryError:
        record["reason"] = "out of memory"
    model.eval()
    return record


if __name__ == "__main__":
    main()
