"""What all trials of a process share: the model, its own answers to the search prompts, and the blocks to be tried."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock

from ..judges.verdict import Judge
from ..measurement.damage import AnswerLogprobs, answer_logprobs
from ..models.first_token import plain_logprobs
from ..models.inputs import BlockInputs
from ..models.load import restore_precision
from ..models.model import ChatModel, check_layer
from ..models.placement import settle
from ..progress import Stages
from ..prompts.prompt import rows_of_kind
from ..prompts.split import Split
from ..records.scan import Scan
from ..repair.direction import refusal_direction
from ..repair.kept import Kept
from ..repair.method import scan_candidates
from ..repair.opening import where_answers_begin
from ..repair.refusals import Refusals, how_it_refuses
from ..repair.rules import HARMFUL, HARMLESS, RULES, RuleName, kind_codes
from ..repair.settings import Settings
from ..repair.suited import suited_rule
from ..repair.train import block_outputs
from .parts import Parts
from .shared import SharedBlock, inputs_of, make_inputs, shared_blocks
from .space import Space, blocks_to_search

PHASES = ANSWERS, BLOCKS, INPUTS = ("answers to search by", "blocks to search", "inputs of those blocks")
"""What is done before the first trial, as `progress.Stages` names it."""

ASKED = 64
"""Search prompts of each kind, at most, whose answers are judged."""


@dataclass(frozen=True)
class Bench:
    """What all trials of this process share.

    - `settings`: those of the user; a trial changes some.
    - `refusals`: how the model refuses, by its answers to the search prompts.
    - `plain`: log-probabilities of the unedited model's first tokens, (search prompt, vocabulary).
    - `harmless`: what the unedited model gives to its own answers to the harmless ones of `refusals.asked`.
    - `space`: what may be tried; `block`: what a block of it receives.
    """

    chat_model: ChatModel
    parts: Parts
    settings: Settings
    judge: Judge
    refusals: Refusals
    plain: torch.Tensor
    harmless: AnswerLogprobs
    space: Space
    block: Callable[[int], SharedBlock]


def make_bench(
    chat_model: ChatModel, parts: Parts, settings: Settings, judge: Judge, folder: Path, stages: Stages
) -> Bench:
    """What trials share, made in `folder`, or read from there where another process has made it.

    **Raises:** `UserError` when harmful and harmless prompts are answered alike, or a block cannot be trained.
    """
    settle(chat_model.model)
    with stages(ANSWERS), FileLock(folder / "answers.lock"):
        chat_model = where_answers_begin(chat_model, parts.train)
        refusals = how_it_refuses(chat_model, parts.search, judge, settings.seed, folder / "answers.jsonl", most=ASKED)
    with stages(BLOCKS), FileLock(folder / "scan.lock"):
        blocks = _blocks(chat_model, parts, settings, refusals, Kept(folder))
    with stages(INPUTS):
        for layer in blocks:
            restore_precision(chat_model, layer)
        token_ids = chat_model.encode(parts.train + parts.search)
        make_inputs(chat_model, blocks, token_ids, folder)
        rule = _rule(chat_model, parts, settings, refusals, inputs_of(chat_model, blocks[0], token_ids, folder))
        odds = RULES[rule].odds_objective is not None
        block = shared_blocks(chat_model, token_ids, len(parts.train), refusals.start, odds, folder)
        asked = [refusals.responses[row] for row in rows_of_kind(refusals.asked, "harmless")]
        return Bench(
            chat_model,
            parts,
            settings,
            judge,
            refusals,
            plain_logprobs(chat_model, token_ids[len(parts.train) :]),
            answer_logprobs(chat_model, [each.prompt for each in asked], [each.text for each in asked]),
            Space(blocks, rule),
            block,
        )


def _blocks(chat_model: ChatModel, parts: Parts, settings: Settings, refusals: Refusals, kept: Kept) -> list[int]:
    """The block that `settings` name, or those to search, the one that `fit` would take first."""
    if isinstance(settings.layer, int):
        return [check_layer(chat_model, settings.layer)]
    split = Split(parts.train, parts.search)

    def scan() -> Scan:
        return scan_candidates(chat_model, split, refusals.start.tokens, settings)

    scanned = kept.value("scan.json", Scan, scan)
    return blocks_to_search(scanned) if settings.layer == "auto" else [scanned.best_silhouette().layer]


def _rule(chat_model: ChatModel, parts: Parts, settings: Settings, refusals: Refusals, inputs: BlockInputs) -> RuleName:
    """The rule that `settings` name, or the one that suits the model, by what a block receives."""
    if settings.rule != "auto":
        return settings.rule
    train, kinds = inputs.select(range(len(parts.train))), kind_codes([prompt.kind for prompt in parts.train])
    activations = block_outputs(chat_model, train)
    direction = refusal_direction(activations[kinds == HARMFUL], activations[kinds == HARMLESS])
    return suited_rule(chat_model, train, kinds, direction.position(activations), refusals).rule
