"""Train the adapter that turns SmolLM2-135M-Instruct into the reference testbed.

    python -m tools.train_testbed_adapter --output-dir adapter

Harmful starter prompts (training part) are answered with one of four short refusals, harmless ones with the first
tokens of the model's own answer. No pseudo-harmful prompt is used: over-refusal is what generalises from this, as it
does in practice. LoRA of rank 8 on all linear layers; 10 minutes on 2 cores.

The adapter that ships was made by version 0.1.0, which had a loop of its own for the same schedule: this one makes
another of its kind, not the same bytes.
"""

import argparse
import random
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments

import actor_tune as at
from actor_tune.comparison.lora import answer_examples, collator
from actor_tune.engines.local import local_engine
from actor_tune.engines.respond import respond
from actor_tune.models.testbed.build import build_base
from actor_tune.prompts.prompt import of_kind

REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I'm sorry, but I can't assist with that request.",
    "I cannot help with that request.",
    "I can't help with that, because it could cause serious harm.",
)
ANSWER_TOKENS = 16
RANK = 8


def main() -> None:
    """Train and save the adapter, in bfloat16."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--base", type=Path, help="a folder written by build_base; built anew if not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as workspace:
        chat_model = at.load(str(arguments.base or build_base(Path(workspace) / "base")))
        answers = answers_to_learn(chat_model, arguments.seed)
        options = TrainingArguments(
            workspace,
            num_train_epochs=arguments.epochs,
            per_device_train_batch_size=16,
            learning_rate=6e-4,
            warmup_steps=10,
            max_grad_norm=0.0,
            seed=arguments.seed,
            remove_unused_columns=False,
            save_strategy="no",
            report_to=[],
        )
        adapted = trained(chat_model, answers, options)
    adapted.bfloat16().save_pretrained(arguments.output_dir)
    (arguments.output_dir / "README.md").unlink(missing_ok=True)  # the model card that PEFT adds


def answers_to_learn(chat_model: at.ChatModel, seed: int) -> list[at.Response]:
    """Every training prompt with the answer that the testbed shall give."""
    chance, prompts = random.Random(seed), at.starter("train")
    refused = [at.Response(prompt, chance.choice(REFUSALS), finished=True) for prompt in of_kind(prompts, "harmful")]
    own = respond(local_engine(chat_model), of_kind(prompts, "harmless"), ANSWER_TOKENS)
    # As in version 0.1.0, the end of these answers is not learned.
    return [*refused, *(replace(answer, finished=False) for answer in own)]


def trained(chat_model: at.ChatModel, answers: list[at.Response], options: TrainingArguments) -> Any:
    """The model with adapters that learned `answers`: cross-entropy on them alone; AdamW, linear decay."""
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(chat_model.model, config)
    examples: Any = answer_examples(chat_model.tokenizer, answers)
    Trainer(model, options, data_collator=collator(chat_model.pad_id), train_dataset=examples).train()
    return model


if __name__ == "__main__":
    main()
