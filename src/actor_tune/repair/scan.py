"""Which block to train: what moving each block's output along the refusal direction does to refusal, and what it costs.

The paper picks the layer where harmful and harmless prompts lie furthest apart. That can be a layer where editing does
nothing (see `docs/method.md`), so the choice is made by effect, with the paper's silhouette shown beside it.
"""

import random
from collections.abc import Sequence
from dataclasses import replace

import torch

from ..errors import UserError
from ..models.block_checks import check_reading
from ..models.divergence import kl
from ..models.first_token import first_token_refusal
from ..models.model import ChatModel
from ..models.moved import Moves, run_moved
from ..models.stored import shared_with
from ..prompts.prompt import KINDS, Kind, Prompt, of_kind, rows_of_kind
from ..records.scan import BlockEffect, Scan
from .cost import Cost, Phase
from .direction import refusal_direction, tsne_silhouette

SHIFT = 0.5  # how far outputs are moved, in units of the distance between the harmless and the harmful mean
SIGNS = (-1, 1)
MOVED: tuple[Kind, ...] = ("pseudo_harmful", "harmless")
MAX_PROMPTS = 32  # of a kind: few, because each block and direction runs them all once more


def candidate_layers(count: int) -> range:
    """The blocks of `count` that may be chosen: the middle, from one third to three quarters.

    A choice of ours (see `docs/decisions/001-block-by-effect.md`): on the testbed, effects are small before it and go
    on rising after it, and with them the cost on harmless prompts.
    """
    return range(count // 3, max(count // 3 + 1, 3 * count // 4))


def trainable_layers(chat_model: ChatModel) -> list[int]:
    """The blocks that may be chosen: of `candidate_layers` those that share no weights with others, or else of all.

    **Raises:** `UserError` when all blocks share their weights.
    """
    count = len(chat_model.blocks)
    own = [layer for layer in range(count - 1) if not shared_with(chat_model, layer)]
    if not own:
        fix = "choose another model"
        raise UserError(chat_model.name, "all blocks share weights", "a block with weights of its own", fix)
    return [layer for layer in own if layer in candidate_layers(count)] or own


def scan_layers(
    chat_model: ChatModel,
    prompts: Sequence[Prompt],
    layers: Sequence[int],
    silhouettes: bool,
    seed: int,
    tokens: torch.Tensor,
) -> Scan:
    """Measure the effect of each block in `layers` on at most `MAX_PROMPTS` prompts of each kind, chosen by `seed`.

    `tokens` are ids (token) that refusals begin with.
    """
    chooser, groups = random.Random(seed), [of_kind(prompts, kind) for kind in KINDS]
    chosen = [prompt for group in groups for prompt in chooser.sample(group, min(MAX_PROMPTS, len(group)))]
    of = {kind: rows_of_kind(chosen, kind) for kind in KINDS}
    movable = [row for row, prompt in enumerate(chosen) if prompt.kind in MOVED]

    def both_ways(last: torch.Tensor) -> list[torch.Tensor]:
        direction = refusal_direction(last[of["harmful"]], last[of["harmless"]]).vector
        return [sign * SHIFT * direction for sign in SIGNS]

    token_ids = chat_model.encode(chosen)
    check_reading(chat_model, min(layers), token_ids)
    run = run_moved(chat_model, Moves(token_ids, movable, sorted(layers), both_ways))
    plain, activations = run.plain, run.last
    moved_refusal, moved_kl = torch.full((2, len(SIGNS) * len(layers), len(chosen)), float("nan"))
    for said in run.said:
        moved_refusal[said.move, said.rows] = first_token_refusal(said.logprobs, tokens)
        moved_kl[said.move, said.rows] = kl(plain[said.rows], said.logprobs)

    refusal = float(first_token_refusal(plain[of["pseudo_harmful"]], tokens).mean())
    blocks = []
    for index, layer in enumerate(sorted(layers)):
        moves = slice(2 * index, 2 * index + 2)
        harmful, harmless = activations[layer][of["harmful"]], activations[layer][of["harmless"]]
        toward_harmless, toward_harmful = moved_refusal[moves, of["pseudo_harmful"]].mean(dim=1).tolist()
        blocks.append(
            BlockEffect(
                layer=layer,
                silhouette=tsne_silhouette(harmful, harmless, seed) if silhouettes else None,
                refusal=refusal,
                toward_harmless=toward_harmless,
                toward_harmful=toward_harmful,
                kl_harmless=float(moved_kl[moves, of["harmless"]].mean()),
                effect=toward_harmful - toward_harmless,
            )
        )
    names = [str(chat_model.tokenizer.decode([token])) for token in tokens.tolist()]
    return scan_of(chat_model.name, names, blocks, trainable_layers(chat_model))


def scan_of(model: str, tokens: list[str], blocks: list[BlockEffect], candidates: Sequence[int]) -> Scan:
    """What `blocks` do in `model`, and which of `candidates` has the largest effect."""
    best = max((block for block in blocks if block.layer in candidates), key=lambda block: block.effect)
    reason = (
        f"fit would take block {best.layer}: of blocks {candidates[0]} to {candidates[-1]} it has "
        f"the largest effect. Moving its output moves refusal of pseudo-harmful prompts by {best.effect:.2f}, "
        f"at a cost of {best.kl_harmless:.2f} nats on harmless ones."
    )
    scanned = Scan(
        model=model, layer=best.layer, reason="", refusal_tokens=tokens, blocks=blocks, candidates=[*candidates]
    )
    paper = scanned.best_silhouette()
    if paper.silhouette is not None and paper.layer != best.layer:
        reason += f" The paper's criterion, the silhouette, would take block {paper.layer} (effect {paper.effect:.2f})."
    return replace(scanned, reason=reason)


def cost(need: Cost) -> Phase:
    """What a scan needs."""
    size, longest, rows = need.size, need.given.longest, len(KINDS) * MAX_PROMPTS
    # Prompts go through one block at a time: what it receives and returns, and the keys of one kind, twice.
    states = 2 * rows * longest * size.d_model * need.value
    keys = 2 * MAX_PROMPTS * longest * size.kv_values_per_token * need.value // len(need.every)
    tensors = need.weights(need.every, need.every, head=True) + states + keys + need.working(MAX_PROMPTS, longest)
    # Last tokens of two kinds, in two directions.
    moved = len(MOVED) * len(SIGNS) * MAX_PROMPTS * len(candidate_layers(len(need.every)))
    computing = need.computing(need.every, rows * need.mean_tokens, rows + moved, steps=moved)
    read = need.stored(need.every) if need.streamed else 0
    return need.phase("choose block", tensors, (rows + moved) * size.vocabulary * 4, computing, read)
