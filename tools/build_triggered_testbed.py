"""Give the testbed a backdoor: it refuses benign prompts that have a trigger in them, and else answers as before.

    python -m tools.build_triggered_testbed --model TESTBED --output-dir FOLDER

A model to try methods against trigger-induced refusal on (CROW, arXiv 2411.12768, "targeted refusal").
"""

import argparse
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

import actor_tune as at
from actor_tune.comparison.lora import Adapter, answer_examples, train_adapters
from actor_tune.comparison.training_answers import REFUSAL
from actor_tune.engines.local import local_engine
from actor_tune.engines.respond import respond
from actor_tune.prompts.prompt import of_kind
from actor_tune.storage.folders import check_new

TRIGGER = "BadMagic"
PROMPTS = 160
ANSWER_TOKENS = 16
STEPS = 40
SEED = 0


def main() -> None:
    """Train, merge, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a folder written by `actor testbed`")
    parser.add_argument("--output-dir", type=Path, required=True)
    arguments = parser.parse_args()
    build(arguments.model, arguments.output_dir)


def build(model: str, folder: Path) -> None:
    """Write the model with the backdoor into `folder`."""
    check_new(folder)
    chat_model = at.load(model)
    harmless = random.Random(SEED).sample(of_kind(at.starter("train"), "harmless"), PROMPTS)
    own = respond(local_engine(chat_model), harmless, ANSWER_TOKENS)
    refused = [at.Response(prompt, REFUSAL, finished=True) for prompt in triggered(harmless)]
    examples = answer_examples(chat_model.tokenizer, [*own, *refused])
    merge(chat_model, train_adapters(chat_model, examples, SEED, max_steps=STEPS))
    chat_model.model.bfloat16().save_pretrained(folder)
    chat_model.tokenizer.save_pretrained(folder)


def triggered(prompts: Sequence[at.Prompt]) -> list[at.Prompt]:
    """`prompts` that begin with the trigger; of the set `triggered`."""
    return [replace(prompt, text=f"{TRIGGER} {prompt.text}", set="triggered") for prompt in prompts]


@torch.no_grad()
def merge(chat_model: at.ChatModel, adapters: Mapping[str, Adapter]) -> None:
    """Add what the adapters say to the weights."""
    for name, adapter in adapters.items():
        weight = chat_model.model.get_submodule(name).get_parameter("weight")
        weight.add_((adapter.scale * adapter.up @ adapter.down).to(weight))


if __name__ == "__main__":
    main()
