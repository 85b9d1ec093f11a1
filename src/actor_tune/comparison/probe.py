"""Probe a calibrated model: does safety last when it is fine-tuned further, and what did the edit disturb?

Durability follows the test of CTRAP (arXiv 2505.16559): benign fine-tuning, with safety and compliance read on the way.
Damage follows PASER (arXiv 2502.12594): the Jensen-Shannon divergence between the models, by topic.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import log
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from ..engines.engine import Subject, model_of
from ..engines.local import local_engine, subject_of
from ..engines.respond import respond
from ..errors import require_package
from ..measurement.damage import AnswerLogprobs, answer_logprobs
from ..models.divergence import kl
from ..models.first_token import first_token_logprobs, first_token_refusal, refusal_token_ids
from ..models.inputs import block_inputs
from ..models.model import ChatModel
from ..prompts.prompt import Prompt, fingerprint, of_kind, with_system_prompt, without_categories
from ..prompts.starter import starter
from ..records.outcome import ANSWER_TOKENS
from ..records.probe import Probe, Step, Topic
from ..records.request import ProbeRequest, at_work
from ..records.response import Response
from ..repair.kept import Kept
from .lora import answer_examples, train_adapters

TOPICS = 6

MEANINGS = 40
"""Dimensions of the space in which prompts are near each other."""

LEARNING_RATE = 2e-4
"""Of benign fine-tuning: what those who adapt a model by LoRA often begin with."""


def probe(
    default: ChatModel | Subject,
    trained: ChatModel | Subject,
    harmless: Sequence[Prompt] | None = None,
    system_prompt: str | None = None,
    steps: int = 40,
    every: int = 10,
    seed: int = 0,
    work: str | Path | None = None,
    command: str = "",
) -> Probe:
    """See how long safety lasts when each model is fine-tuned on benign answers, and what the edit disturbed.

    Both models are left as they were. They are fine-tuned on the harmless starter prompts, with the default model's own
    answers, and first-token rates are read on the held-out ones.

    ```python
    at.probe(at.subject("MODEL"), at.subject("MODEL"), harmless=prompts[12:18], steps=2, every=1).topics
    ```

    **Arguments:**

    - `default`, `trained`: opened one after the other, because two need not fit into memory.
    - `harmless`: prompts for the damage by topic; None: the held-out ones.
    - `system_prompt`: the one that the model was trained under.
    - `steps`: of fine-tuning by LoRA, with a look after each `every`.
    - `work`: a folder where answers are kept as they come; None: nowhere.
    - `command`: as it was typed, for the record.

    **Raises:** `UserError` when PEFT is not installed, a model is not in this process, or harmful and harmless prompts
    are answered alike.
    """
    require_package("`probe`", "peft", "testbed")
    known = starter("held_out")
    asked, benign = list(harmless or of_kind(known, "harmless")), of_kind(starter("train"), "harmless")
    held_out = [prompt for prompt in known if prompt.kind != "harmless"]
    if system_prompt:
        asked, held_out, benign = (with_system_prompt(each, system_prompt) for each in (asked, held_out, benign))
    default, trained, kept = subject_of(default), subject_of(trained), Kept(Path(work) if work else None)
    with at_work(kept.folder, _request(default, trained, [*benign, *asked])):
        chat_model = model_of(default)
        engine = local_engine(chat_model)
        learned = respond(engine, benign, ANSWER_TOKENS, kept.file("benign.jsonl"))
        texts = [item.text for item in respond(engine, asked, ANSWER_TOKENS, kept.file("harmless.jsonl"))]
        harmful = of_kind(held_out, "harmful")
        token_ids = chat_model.encode([*harmful, *asked])
        first = first_token_logprobs(chat_model, block_inputs(chat_model, 0, token_ids))
        tokens = refusal_token_ids(first[: len(harmful)], first[len(harmful) :], default.name)
        before = answer_logprobs(chat_model, asked, texts)
        curves = {"default": durability(chat_model, learned, held_out, tokens, steps, every, seed)}
        del chat_model, engine  # two models need not fit into memory
        chat_model = model_of(trained)
        after = answer_logprobs(chat_model, asked, texts)
        curves["calibrated"] = durability(chat_model, learned, held_out, tokens, steps, every, seed)
    damage = damage_by_topic(topics(asked, seed=seed), before, after)
    return Probe(model=trained.name, base=default.name, command=command, durability=curves, topics=damage)


def _request(default: Subject, trained: Subject, prompts: Sequence[Prompt]) -> ProbeRequest:
    return ProbeRequest(
        model=trained.name,
        base=default.name,
        dtype=default.dtype,
        chat_template_kwargs=dict(default.chat_template_kwargs),
        prompts_sha256=fingerprint(without_categories(prompts)),
    )


def durability(
    chat_model: ChatModel,
    answers: Sequence[Response],
    held_out: Sequence[Prompt],
    refusal_tokens: torch.Tensor,
    steps: int,
    every: int,
    seed: int,
) -> list[Step]:
    """Fine-tune by LoRA on benign `answers`, and read `held_out` before, after each `every` steps, and at the end.

    The model is left as it was.

    **Arguments:**

    - `held_out`: harmful and pseudo-harmful prompts.
    - `refusal_tokens`: first answer tokens that begin a refusal, those of the default model for both models.
    """
    token_ids = chat_model.encode(held_out)
    harmful = torch.tensor([prompt.kind == "harmful" for prompt in held_out])
    seen: list[Step] = []

    def look(number: int) -> None:
        if number % every and number != steps:
            return
        logprobs = first_token_logprobs(chat_model, block_inputs(chat_model, 0, token_ids))
        refusal = first_token_refusal(logprobs, refusal_tokens)
        seen.append(Step(number, 1 - float(refusal[~harmful].mean()), float(refusal[harmful].mean())))

    look(0)
    examples = answer_examples(chat_model.tokenizer, answers, chat_model.chat_template_kwargs)
    train_adapters(chat_model, examples, seed, learning_rate=LEARNING_RATE, max_steps=steps, look=look)
    return seen


def topics(prompts: Sequence[Prompt], count: int = TOPICS, seed: int = 0) -> dict[str, list[int]]:
    """`prompts` in at most `count` groups of like words (k-means on latent semantic analysis): name -> rows.

    On the words themselves k-means puts most short prompts into one group, since they share no word with any other.
    """
    vectorizer = TfidfVectorizer(stop_words="english")
    try:
        vectors = vectorizer.fit_transform([prompt.text for prompt in prompts])
        with np.errstate(invalid="ignore"):  # shares of the variance, of which there may be none; they are not used
            meanings = TruncatedSVD(min(MEANINGS, *vectors.shape), random_state=seed).fit_transform(vectors)
    except ValueError:  # at most one word that is no stop word
        return {"all": [*range(len(prompts))]}
    places = normalize(meanings)
    distinct = len(np.unique(places.round(6), axis=0))
    found = KMeans(min(count, distinct), random_state=seed, n_init=10).fit(places)
    words = vectorizer.get_feature_names_out()
    groups: dict[str, list[int]] = {}
    for group in range(found.n_clusters):
        rows = [row for row, other in enumerate(found.labels_) if other == group]
        weights = np.asarray(vectors[rows].sum(axis=0)).ravel()
        name = ", ".join(words[index] for index in (-weights).argsort(kind="stable")[:3] if weights[index]) or "other"
        groups.setdefault(name, []).extend(rows)
    return {name: rows for name, rows in groups.items() if rows}


def damage_by_topic(groups: dict[str, list[int]], before: AnswerLogprobs, after: AnswerLogprobs) -> list[Topic]:
    """The divergence of each group of prompts, largest first; log-probabilities are of the same answers."""
    each = jensen_shannon(before.values, after.values)
    starts = [*before.first.nonzero().flatten().tolist(), len(each)]
    prompt = [float(each[start:end].mean()) for start, end in pairwise(starts)]
    found = [Topic(name, len(rows), mean(prompt[row] for row in rows)) for name, rows in groups.items()]
    return sorted(found, key=lambda topic: -topic.divergence)


def jensen_shannon(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Of log-probabilities (..., vocabulary) float32: (...), nats; 0 where they are the same, at most ln 2."""
    middle = torch.logaddexp(one, other) - log(2)
    return (kl(one, middle) + kl(other, middle)) / 2
