"""How this model refuses: its own answers to some prompts, judged, and the tokens that its refusals begin with.

First tokens are cheap to read, for any prompt and any change of a block. What they mean is the model's own matter: one
begins refusals with "I", another with "As", a third answers "I'd be happy to". So some prompts are answered and judged,
and a token counts as the beginning of a refusal where most answers that begin with it are refusals. How often that is
wrong is told beside it.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..engines.local import AUTO_BATCH_SIZE, local_engine
from ..engines.respond import respond
from ..judges.verdict import Judge, Verdict
from ..measurement.verdicts import verdicts_on
from ..models.first_token import plain_logprobs, refusal_token_ids
from ..models.model import ChatModel
from ..prompts.prompt import KINDS, Kind, Prompt, of_kind, rows_of_kind
from ..records.response import Response
from ..records.run import RefusalToken
from .aims import FREE_ALL, Aims
from .cost import Cost, Phase
from .odds import RefusalStart, log_odds

ASKED = 48  # prompts of each kind at most
ANSWER_TOKENS = 24  # enough to tell a refusal
LEAST = 2  # answers that must begin with a token before it is said what it begins


@dataclass(frozen=True)
class Refusals:
    """How a model refuses, as it is.

    - `asked`, `responses`, `verdicts`: prompts, the model's own answers, and what the judge says of them.
    - `start`: what refusals begin with; `refusal_tokens`: the same with what it rests on. None: too few of these
      answers are refusals, so that the tokens are those that are more likely after harmful prompts.
    - `error`: of `asked`, the share on the wrong side of the boundary by their verdicts, 0..1; None without them.
    - `beside`: of `asked`, the rows of those that are held beside others (`Aims.beside`).
    """

    asked: list[Prompt]
    responses: list[Response]
    verdicts: list[Verdict]
    start: RefusalStart
    refusal_tokens: list[RefusalToken]
    error: float | None
    beside: list[int] = field(default_factory=list)

    def rows(self, kind: Kind) -> list[int]:
        """Where in `asked` those of `kind` are, without those that are held beside."""
        return [row for row in rows_of_kind(self.asked, kind) if row not in self.beside]


def groups_asked(prompts: Sequence[Prompt], aims: Aims = FREE_ALL) -> list[list[Prompt]]:
    """The groups that at most `ASKED` each are asked of: kinds, and pseudo-harmful ones that are held beside others."""
    kinds = [[prompt for prompt in of_kind(prompts, kind) if not aims.beside(prompt)] for kind in KINDS]
    return [*kinds, [prompt for prompt in prompts if aims.beside(prompt)]]


def how_it_refuses(
    chat_model: ChatModel,
    prompts: Sequence[Prompt],
    judge: Judge,
    seed: int,
    store: Path | None = None,
    aims: Aims = FREE_ALL,
    most: int = ASKED,
) -> Refusals:
    """Ask `chat_model` at most `most` of `prompts` of each group, chosen by `seed`, and judge its answers.

    Answers are kept in `store` as they come (`respond`).

    **Raises:** `UserError` when harmful and harmless prompts are answered alike.
    """
    chooser, groups = random.Random(seed), groups_asked(prompts, aims)
    asked = [prompt for group in groups for prompt in chooser.sample(group, min(most, len(group)))]
    beside = [row for row, prompt in enumerate(asked) if aims.beside(prompt)]
    logprobs = plain_logprobs(chat_model, chat_model.encode(asked))
    responses = own_answers(chat_model, asked, store)
    verdicts = verdicts_on(judge, responses)
    refused = torch.tensor([verdict.refused for verdict in verdicts])
    first = logprobs.argmax(dim=-1)
    refusal_tokens = []
    # What a model that reasons says first, it says to itself.
    for token in [] if any(response.reasoning for response in responses) else first.unique().tolist():
        own = refused[first == token]
        if len(own) >= LEAST and 2 * int(own.sum()) > len(own):
            refusal_tokens.append(
                RefusalToken(token, str(chat_model.tokenizer.decode([token])), int(own.sum()), len(own))
            )
    if refusal_tokens:
        tokens = torch.tensor([item.token for item in refusal_tokens])
        boundary, wrong = best_boundary(log_odds(logprobs, tokens), refused)
        return Refusals(asked, responses, verdicts, RefusalStart(tokens, boundary), refusal_tokens, wrong, beside)
    harmful, harmless = (logprobs[rows_of_kind(asked, kind)] for kind in ("harmful", "harmless"))
    tokens = refusal_token_ids(harmful, harmless, chat_model.name)
    return Refusals(asked, responses, verdicts, RefusalStart(tokens), [], None, beside)


def own_answers(chat_model: ChatModel, prompts: Sequence[Prompt], store: Path | None = None) -> list[Response]:
    """The first `ANSWER_TOKENS` tokens of the answers of `chat_model`, with its blocks as they are now."""
    return respond(local_engine(chat_model), prompts, ANSWER_TOKENS, store)


def best_boundary(values: torch.Tensor, refused: torch.Tensor) -> tuple[float, float]:
    """The value that best parts refused from answered prompts, both (prompt), and the share that it parts wrongly.

    Halfway between the two values that it lies between; of several equally good, the middle one.
    """
    order = values.sort()
    own = refused[order.indices].float()
    # With the first n below: refused ones below and answered ones above are wrong.
    below = torch.cat([own.new_zeros(1), own.cumsum(dim=0)])
    above = torch.cat([(1 - own).sum()[None], (1 - own).sum() - (1 - own).cumsum(dim=0)])
    wrong = below + above
    best = (wrong == wrong.min()).nonzero().flatten().tolist()
    at = best[len(best) // 2]
    ends = torch.cat([order.values[:1] - 1, order.values, order.values[-1:] + 1])
    return float((ends[at] + ends[at + 1]) / 2), float(wrong.min()) / len(values)


def cost(need: Cost) -> Phase:
    """What asking the model how it refuses needs; an engine that is short of memory answers fewer at a time."""
    asked = need.own_answers
    tensors = need.weights(need.every, need.every, head=True) + need.working_on_given()
    computing = need.computing(need.every, asked * need.mean_tokens, asked) + need.own_answering
    passes = 1 + need.own_tokens * math.ceil(asked / AUTO_BATCH_SIZE)
    read = passes * need.stored(need.every) if need.streamed else 0
    return need.phase("own answers", tensors, asked * need.size.vocabulary * 4, computing, read)
