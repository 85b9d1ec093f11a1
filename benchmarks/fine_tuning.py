"""Seconds of supervised fine-tuning by `transformers.Trainer`, which `fit` replaces: all parameters, and LoRA."""

import importlib.util
import math
import tempfile
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

import actor_tune as at
from actor_tune.comparison.lora import collator

from .common import Record, peak_memory, reset_peak, say

BATCH_SIZE = 16
EPOCHS = 3
ANSWER_TOKENS = 16

Example = dict[str, list[int]]
"""`input_ids`: tokens of a prompt and its answer; `answer_ids`: those of the answer, which is learned."""


def fine_tuning(chat_model: at.ChatModel, examples: list[Example], prompts: int) -> Record:
    """Seconds of three epochs on so many `prompts`, each way, from one on `examples`; the model is lost to others."""
    steps = EPOCHS * math.ceil(prompts / BATCH_SIZE)
    record: Record = {"batch_size": BATCH_SIZE, "epochs": EPOCHS, "steps": steps}
    if importlib.util.find_spec("peft"):
        from peft import LoraConfig, get_peft_model

        options = LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")
        adapted = get_peft_model(chat_model.model, options)
        record["lora"] = one_way(adapted, "LoRA", chat_model, examples, steps)
        adapted.unload()
    full = chat_model.model.requires_grad_(True)
    return record | {"full": one_way(full, "all parameters", chat_model, examples, steps)}


def one_way(model: Any, name: str, chat_model: at.ChatModel, examples: list[Example], steps: int) -> Record:
    """Seconds of so many `steps`; None where they do not fit into memory."""
    timed = math.ceil(len(examples) / BATCH_SIZE)
    say(f"fine-tuning, {name}, {timed} steps")
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    record: Record = {"steps_timed": timed, "trainable": trainable, "seconds": None}
    reset_peak(chat_model.device.type)
    try:
        epoch_seconds(model, chat_model, examples[: 2 * BATCH_SIZE])  # warm-up
        per_step = epoch_seconds(model, chat_model, examples) / timed
    except torch.OutOfMemoryError:
        return record | {"reason": "out of memory"}
    peak = peak_memory(chat_model.device.type)
    return record | {"seconds_per_step": per_step, "seconds": per_step * steps, "peak_bytes": peak}


def epoch_seconds(model: Any, chat_model: at.ChatModel, examples: list[Example]) -> float:
    """Seconds of the steps of one epoch on `examples`."""
    given: Any = examples  # a list is a data set for Trainer, though its types do not say so
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=BATCH_SIZE,
            learning_rate=2e-5,
            train_sampling_strategy="group_by_length",
            remove_unused_columns=False,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=chat_model.device.type == "cpu",
        )
        trainer = Trainer(model, settings, data_collator=collator(chat_model.pad_id), train_dataset=given)
        return float(trainer.train().metrics["train_runtime"])
