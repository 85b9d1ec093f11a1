"""Which block to train: what moving each block's output along the refusal direction does to refusal, and what it costs.

The paper picks the layer where harmful and harmless prompts lie furthest apart. That can be a layer where editing does
nothing (see `docs/method.md`), so the choice is made by effect, with the paper's silhouette shown beside it. Only the
last token is moved; all go through one block before the next is needed, so that weights on disk are fetched once.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from ..models.activations import last_logits, run_block
from ..models.chat import Batch, encode
from ..models.divergence import kl
from ..models.first_token import first_token_refusal, refusal_token_ids
from ..models.inputs import BlockInputs, block_inputs, run_opening
from ..models.kv_cache import Kept, Keys
from ..models.model import ChatModel
from ..models.placement import held
from ..progress import track
from ..prompts.prompt import KINDS, Kind, Prompt, of_kind, rows_of_kind
from ..records.scan import BlockEffect, Scan
from .cost import Cost, Phase
from .direction import refusal_direction, tsne_silhouette

SHIFT = 0.5  # how far outputs are moved, in units of the distance between the harmless and the harmful mean
SIGNS = (-1, 1)
MOVED: tuple[Kind, ...] = ("pseudo_harmful", "harmless")
MAX_PROMPTS = 32  # of a kind: few, because each block and direction runs them all once more
MOVED_BATCH = 128  # moved last tokens that are run at a time


def candidate_layers(count: int) -> range:
    """The blocks of `count` that may be chosen: the middle, from one third to three quarters.

    A choice of ours (see `docs/decisions/001-block-by-effect.md`): on the testbed, effects are small before it and go
    on rising after it, and with them the cost on harmless prompts.
    """
    return range(count // 3, max(count // 3 + 1, 3 * count // 4))


def scan_layers(
    chat_model: ChatModel, prompts: Sequence[Prompt], layers: Sequence[int], silhouettes: bool, seed: int
) -> Scan:
    """Measure the effect of each block in `layers` on at most `MAX_PROMPTS` prompts of each kind, chosen by `seed`.

    **Raises:** `UserError` when harmful and harmless prompts are answered alike, so that there is no refusal to move.
    """
    chooser, groups = random.Random(seed), [of_kind(prompts, kind) for kind in KINDS]
    chosen = [prompt for group in groups for prompt in chooser.sample(group, min(MAX_PROMPTS, len(group)))]
    of = {kind: rows_of_kind(chosen, kind) for kind in KINDS}
    inputs = block_inputs(chat_model, 0, encode(chat_model.tokenizer, chosen))
    running = [_running(chat_model, inputs, rows, chosen) for rows in inputs.groups()]
    activations = _run_moved(chat_model, inputs, running, of, layers)
    with held(chat_model.model.get_output_embeddings()):
        plain = _in_order(running, [_first_token(chat_model, run.batch, run.hidden) for run in running])
        tokens = refusal_token_ids(plain[of["harmful"]], plain[of["harmless"]], chat_model.name)
        moved = _refusal_and_cost(chat_model, running, plain, tokens)

    refusal = float(first_token_refusal(plain[of["pseudo_harmful"]], tokens).mean())
    blocks = []
    for index, layer in enumerate(sorted(layers)):
        moves = slice(2 * index, 2 * index + 2)
        harmful, harmless = activations[layer][of["harmful"]], activations[layer][of["harmless"]]
        toward_harmless, toward_harmful = moved.refusal[moves, of["pseudo_harmful"]].mean(dim=1).tolist()
        blocks.append(
            BlockEffect(
                layer=layer,
                silhouette=tsne_silhouette(harmful, harmless, seed) if silhouettes else None,
                refusal=refusal,
                toward_harmless=toward_harmless,
                toward_harmful=toward_harmful,
                kl_harmless=float(moved.kl[moves, of["harmless"]].mean()),
                effect=toward_harmful - toward_harmless,
            )
        )
    names = [str(chat_model.tokenizer.decode([token])) for token in tokens.tolist()]
    return scan_of(chat_model.name, names, blocks, candidate_layers(len(chat_model.blocks)))


def scan_of(model: str, tokens: list[str], blocks: list[BlockEffect], candidates: range) -> Scan:
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


@dataclass
class _Running:
    """Some prompts of like length on their way through the blocks.

    - `hidden`: (prompt, token, d_model) what the next block receives.
    - `movable`: which of these prompts have their last token moved.
    - `moved`: (move, movable, d_model) the same of last tokens that were moved; `SIGNS` moves a block.
    """

    batch: Batch
    hidden: torch.Tensor
    movable: list[int]
    moved: torch.Tensor

    def parts(self) -> Iterator[tuple[slice, Batch, torch.Tensor]]:
        """As many moves at a time as `MOVED_BATCH` allows: which, their last tokens, what the next block receives."""
        size = max(1, MOVED_BATCH // max(1, len(self.movable)))
        for start in range(0, len(self.moved), size) if self.movable else ():
            moved = self.moved[start : start + size]
            last = self.batch.lines(self.movable).last().repeat(len(moved))
            yield slice(start, start + len(moved)), last, moved.flatten(0, 1)[:, None]


def _running(chat_model: ChatModel, inputs: BlockInputs, rows: list[int], prompts: Sequence[Prompt]) -> _Running:
    batch, hidden = inputs.batch(rows, chat_model)
    movable = [line for line, row in enumerate(rows) if prompts[row].kind in MOVED]
    return _Running(batch, hidden, movable, hidden[movable, -1][None, :][:0])


@torch.no_grad()
def _run_moved(
    chat_model: ChatModel,
    inputs: BlockInputs,
    running: list[_Running],
    of: dict[Kind, list[int]],
    layers: Sequence[int],
) -> dict[int, torch.Tensor]:
    """Run prompts, and their last token moved at each of `layers`; returns last tokens' (prompt, d_model) there."""
    opening = inputs.opening_hidden
    activations: dict[int, torch.Tensor] = {}
    with held(chat_model.model.get_input_embeddings()):
        for layer in track(range(len(chat_model.blocks)), "Moving each block's output"):
            with held(chat_model.blocks[layer]):
                opening, keys = run_opening(chat_model, inputs, layer, opening)
                for run in running:
                    _through(chat_model, layer, run, keys)
            if layer in layers:
                last = activations[layer] = _in_order(running, [run.hidden[:, -1].float().cpu() for run in running])
                shift = SHIFT * refusal_direction(last[of["harmful"]], last[of["harmless"]]).vector
                for run in running:
                    ends = run.hidden[run.movable, -1]
                    run.moved = torch.cat([run.moved, *[(ends + (sign * shift).to(ends))[None] for sign in SIGNS]])
    return activations


def _through(chat_model: ChatModel, layer: int, run: _Running, keys: Keys | None) -> None:
    """Run the prompts, then each moved last token after the prompts' other tokens, through one block."""
    opening = Keys() if keys is None else keys
    seen: Kept = {}
    run.hidden = run_block(chat_model, layer, run.batch, run.hidden, Keys(opening.length, opening.kept, seen))
    before = {index: value.without_last().rows(run.movable) for index, value in seen.items()}
    for part, last, moved in run.parts():
        kept = {index: value.repeat(part.stop - part.start) for index, value in before.items()}
        others = Keys(run.batch.attention_mask.shape[1] - 1, kept)
        run.moved[part] = run_block(chat_model, layer, last, moved, others).view_as(run.moved[part])


@dataclass(frozen=True)
class _Moved:
    """What each move did to the first answer token, (move, prompt); of prompts that are not moved, NaN."""

    refusal: torch.Tensor  # probability of a token that begins a refusal, 0..1
    kl: torch.Tensor  # from the prompt as it is, nats


@torch.no_grad()
def _refusal_and_cost(
    chat_model: ChatModel, running: list[_Running], plain: torch.Tensor, tokens: torch.Tensor
) -> _Moved:
    """From `plain` log-probabilities (prompt, vocabulary) of the prompts as they are."""
    moved = _Moved(*torch.full((2, len(running[0].moved), len(plain)), float("nan")))
    for run in running:
        rows = [run.batch.rows[line] for line in run.movable]
        for part, last, hidden in run.parts():
            logprobs = _first_token(chat_model, last, hidden).unflatten(0, (-1, len(rows)))
            moved.refusal[part, rows] = first_token_refusal(logprobs, tokens)
            moved.kl[part, rows] = kl(plain[rows], logprobs)
    return moved


@torch.no_grad()
def _first_token(chat_model: ChatModel, batch: Batch, hidden: torch.Tensor) -> torch.Tensor:
    return last_logits(chat_model, batch, hidden).log_softmax(dim=-1).cpu()


def _in_order(running: list[_Running], parts: list[torch.Tensor]) -> torch.Tensor:
    """(prompt, ...) in the order of the prompts, from `parts` in that of each of `running`."""
    return torch.cat(parts)[torch.tensor([row for run in running for row in run.batch.rows]).argsort()]


def cost(need: Cost) -> Phase:
    """What a scan needs."""
    size, longest, rows = need.size, need.given.longest, len(KINDS) * MAX_PROMPTS
    # Prompts go through one block at a time: what it receives and returns, and the keys of one kind, twice.
    states = 2 * rows * longest * size.d_model * need.value
    keys = 2 * MAX_PROMPTS * longest * size.kv_values_per_token * need.value // len(need.every)
    tensors = need.weights(need.every, need.every, head=True) + states + keys + need.working(MAX_PROMPTS, longest)
    # Last tokens of two kinds, in two directions.
    moved = len(MOVED) * len(SIGNS) * MAX_PROMPTS * len(candidate_layers(len(need.every)))
    computing = need.computing(need.every, rows * need.mean_tokens + moved, rows + moved)
    read = need.stored(need.every)
    return need.phase("choose block", tensors, (rows + moved) * size.vocabulary * 4, computing, read)
