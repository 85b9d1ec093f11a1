"""Which block to train: what moving each block's output along the refusal direction does to refusal, and what it costs.

The paper picks the layer where harmful and harmless prompts lie furthest apart. That can be a layer where editing does
nothing (see `docs/method.md`), so the choice is made by effect, with the paper's silhouette shown beside it.

Cost: one pass over at most 32 prompts of each kind, then single tokens: only the last token is moved. Prompts, moved or
not, go through one block before the next is needed, so that weights on disk are fetched once.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from .activations import last_logits, run_block
from .chat import Batch, encode
from .direction import RefusalDirection, refusal_direction, tsne_silhouette
from .divergence import mean_kl
from .errors import UserError
from .inputs import block_inputs, run_opening
from .keys import Keys, KeyValue
from .model import ChatModel
from .placement import held
from .progress import track
from .prompts import KINDS, Kind, Prompt, of_kind

SHIFT = 0.5
"""How far outputs are moved, in units of the distance between the harmless and the harmful mean."""

SIGNS = (-1, 1)

MOVED: tuple[Kind, ...] = ("pseudo_harmful", "harmless")

MAX_PROMPTS = 32
"""Per kind: few, because each block and direction runs them all once more."""


@dataclass(frozen=True)
class BlockEffect:
    """What one block's output does.

    - `silhouette`: the paper's criterion, -1..1; None where it was not asked for.
    - `refusal`: mean first-token refusal, 0..1, on pseudo-harmful prompts as they are.
    - `toward_harmless`, `toward_harmful`: the same with the output moved by `SHIFT` down and up the direction.
    - `kl_harmless`: nats on harmless prompts, mean of both moves.
    """

    layer: int
    silhouette: float | None
    refusal: float
    toward_harmless: float
    toward_harmful: float
    kl_harmless: float

    @property
    def effect(self) -> float:
        """How far refusal moves: toward harmful minus toward harmless."""
        return self.toward_harmful - self.toward_harmless


@dataclass(frozen=True)
class Scan:
    """What each scanned block does, and the tokens by which first-token refusal was read.

    - `candidates`: the blocks that may be chosen.
    """

    blocks: list[BlockEffect]
    refusal_tokens: list[str]
    candidates: range

    def best(self) -> BlockEffect:
        """The candidate with the largest effect."""
        return max((block for block in self.blocks if block.layer in self.candidates), key=lambda block: block.effect)

    def best_silhouette(self) -> BlockEffect:
        """The block the paper would take."""
        return max(self.blocks, key=lambda block: -2.0 if block.silhouette is None else block.silhouette)


def candidate_layers(count: int) -> range:
    """The blocks of `count` that may be chosen: the middle, from one third to three quarters.

    A choice of ours (see `docs/decisions/001-block-by-effect.md`): on the testbed, effects are small before it and go
    on rising after it, and with them the cost on harmless prompts.
    """
    return range(count // 3, max(count // 3 + 1, 3 * count // 4))


def refusal_token_ids(harmful: torch.Tensor, harmless: torch.Tensor, model_name: str) -> torch.Tensor:
    """The first answer tokens that are more likely by 0.01 or more after harmful than after harmless prompts.

    From log-probabilities (prompt, vocabulary); returns token ids. Read off the model itself, so that no list of
    phrases, and no language, is built in.

    **Raises:** `UserError` when there is none: without a sign of refusal nothing can be said about safety.
    """
    surplus = harmful.exp().mean(dim=0) - harmless.exp().mean(dim=0)
    tokens = (surplus > 0.01).nonzero().flatten()
    if not len(tokens):
        found = "harmful and harmless prompts begin their answers with the same tokens"
        raise UserError(model_name, found, "a model that refuses harmful prompts at once", "choose an aligned model")
    return tokens


def scan(chat_model: ChatModel, prompts: Sequence[Prompt], layers: Sequence[int], silhouettes: bool, seed: int) -> Scan:
    """Measure the effect of each block in `layers` on at most `MAX_PROMPTS` prompts of each kind, chosen by `seed`.

    **Raises:** `UserError` when harmful and harmless prompts are answered alike, so that there is no refusal to move.
    """
    chooser = random.Random(seed)
    chosen: list[Prompt] = []
    for kind in KINDS:
        candidates = of_kind(prompts, kind)
        chosen += chooser.sample(candidates, min(MAX_PROMPTS, len(candidates)))
    activations, plain, moved = _run_moved(chat_model, chosen, layers)
    refusal_tokens = refusal_token_ids(plain["harmful"], plain["harmless"], chat_model.name)

    def refusal(logprobs: torch.Tensor) -> float:
        return float(logprobs[:, refusal_tokens].exp().sum(dim=-1).mean())

    blocks = []
    for layer in layers:
        costs = [mean_kl(plain["harmless"], moved[layer, "harmless", sign]) for sign in SIGNS]
        harmful, harmless = activations[layer]["harmful"], activations[layer]["harmless"]
        blocks.append(
            BlockEffect(
                layer=layer,
                silhouette=tsne_silhouette(harmful, harmless, seed) if silhouettes else None,
                refusal=refusal(plain["pseudo_harmful"]),
                toward_harmless=refusal(moved[layer, "pseudo_harmful", -1]),
                toward_harmful=refusal(moved[layer, "pseudo_harmful", 1]),
                kl_harmless=sum(costs) / 2,
            )
        )
    return Scan(
        blocks,
        [str(chat_model.tokenizer.decode([token])) for token in refusal_tokens.tolist()],
        candidate_layers(len(chat_model.blocks)),
    )


ByKind = dict[Kind, torch.Tensor]
Moved = dict[tuple[int, Kind, int], torch.Tensor]
"""(block, kind, sign) of what was moved -> one row a prompt."""


@dataclass
class _Running:
    """The prompts of one kind on their way through the blocks.

    - `hidden`: (prompt, token, d_model) what the next block receives.
    - `moved`: the same of last tokens, (prompt, 1, d_model), that were moved at (block, sign).
    """

    batch: Batch
    hidden: torch.Tensor
    moved: dict[tuple[int, int], torch.Tensor] = field(default_factory=dict)


@torch.no_grad()
def _run_moved(
    chat_model: ChatModel, prompts: Sequence[Prompt], layers: Sequence[int]
) -> tuple[dict[int, ByKind], ByKind, Moved]:
    """Run `prompts`, and their last token moved at each of `layers` by `SHIFT` both ways.

    Returns last-token activations (prompt, d_model) float32 of each of `layers`; log-probabilities of the first answer
    token (prompt, vocabulary) of the prompts as they are; and of those moved.
    """
    inputs = block_inputs(chat_model, 0, encode(chat_model.tokenizer, prompts))
    opening = inputs.opening_hidden
    running: dict[Kind, _Running] = {}
    for kind in KINDS:
        rows = [row for row, prompt in enumerate(prompts) if prompt.kind == kind]
        running[kind] = _Running(*inputs.batch(rows, chat_model))
    activations: dict[int, ByKind] = {}
    with held(chat_model.model.get_input_embeddings()):
        for layer in track(range(len(chat_model.blocks)), "Moving each block's output"):
            with held(chat_model.blocks[layer]):
                opening, keys = run_opening(chat_model, inputs, layer, opening)
                for run in running.values():
                    _through(chat_model, layer, run, keys)
            if layer in layers:
                activations[layer] = {kind: run.hidden[:, -1].float().cpu() for kind, run in running.items()}
                direction = refusal_direction(activations[layer]["harmful"], activations[layer]["harmless"])
                for kind in MOVED:
                    _move(running[kind], layer, direction)
        with held(chat_model.model.get_output_embeddings()):
            plain = {kind: _first_token(chat_model, run.batch, run.hidden) for kind, run in running.items()}
            moved = {
                (layer, kind, sign): _first_token(chat_model, running[kind].batch, hidden)
                for kind in MOVED
                for (layer, sign), hidden in running[kind].moved.items()
            }
    return activations, plain, moved


def _through(chat_model: ChatModel, layer: int, run: _Running, keys: Keys | None) -> None:
    """Run the prompts, then each moved last token after the prompts' other tokens, through one block."""
    kept, length = (keys.kept, keys.length) if keys is not None else ({}, 0)
    seen: dict[int, KeyValue] = {}
    run.hidden = run_block(chat_model, layer, run.batch, run.hidden, Keys(length, kept, seen))
    batch = run.batch
    last = Batch(batch.rows, 0, batch.input_ids[:, -1:], batch.attention_mask, batch.position_ids[:, -1:])
    before = {index: value.without_last() for index, value in seen.items()}
    for moved, hidden in run.moved.items():
        others = Keys(batch.attention_mask.shape[1] - 1, before)
        run.moved[moved] = run_block(chat_model, layer, last, hidden, others)


def _move(run: _Running, layer: int, direction: RefusalDirection) -> None:
    last = run.hidden[:, -1:]
    for sign in SIGNS:
        run.moved[layer, sign] = last + (sign * SHIFT * direction.vector).to(last)


def _first_token(chat_model: ChatModel, batch: Batch, hidden: torch.Tensor) -> torch.Tensor:
    return last_logits(chat_model, batch, hidden).log_softmax(dim=-1).cpu()
