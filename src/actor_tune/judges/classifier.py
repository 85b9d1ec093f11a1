"""Judge by any sequence classifier of the Hugging Face Hub whose labels say what a refusal is.

The prompt goes in as the first text, the answer as the second. A model trained on the answer alone, or on a chat
template, sees another form than in its training: check it against another judge before relying on it.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import UserError
from .local import clipped, load_judge_model
from .readable import readable
from .verdict import Exchange, Judge, Outcome, Verdict

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BATCH_SIZE = 16

MAX_TOKENS = 2048
"""Tokens of prompt and answer together, where the model takes as many."""

_REFUSAL = re.compile(r"refus|reject", re.IGNORECASE)
# "Non-refusal" is a common name of the other class.
_NEGATED = re.compile(r"\b(?:non|not?|without)[\s_-]*(?:refus|reject)", re.IGNORECASE)


def classifier_judge(name: str, device: str = "auto") -> Judge:
    """The judge that is the sequence classifier `name`, a folder or Hub id.

    Its score is the probability of its refusing labels together.

    **Raises:** `UserError` when it cannot be loaded, or no label, or every label, means refusal.
    """
    from transformers import AutoModelForSequenceClassification

    option = f"classifier={name}"
    model, tokenizer = load_judge_model(AutoModelForSequenceClassification, option, name, device)
    labels: dict[int, str] = model.config.id2label  # type: ignore[assignment]
    outcomes = label_outcomes(option, labels)
    limit = min(tokenizer.model_max_length, _positions(model), MAX_TOKENS)

    def judge(exchanges: Sequence[Exchange]) -> list[Verdict]:
        import torch

        verdicts = []
        for start in range(0, len(exchanges), BATCH_SIZE):
            batch = exchanges[start : start + BATCH_SIZE]
            tokens = tokenizer(
                [clipped(exchange.prompt) for exchange in batch],
                [clipped(exchange.answer) for exchange in batch],
                padding=True,
                truncation=True,
                max_length=limit,
                split_special_tokens=True,  # what prompt and answer say of them is text
                return_tensors="pt",
            )
            with torch.inference_mode():
                probabilities = model(**tokens.to(model.device)).logits.float().softmax(dim=-1).tolist()
            verdicts += [_verdict(row, outcomes, labels) for row in probabilities]
        return verdicts

    return readable(judge)


def label_outcomes(option: str, id2label: Mapping[int, str]) -> dict[int, Outcome]:
    """What each label of a classifier means: refusal where its name says refuse or reject, partial where it also says
    partial, else compliance.

    **Raises:** `UserError` listing the labels when none, or every one, means refusal.
    """
    outcomes: dict[int, Outcome] = {}
    for index, label in id2label.items():
        if not _REFUSAL.search(label) or _NEGATED.search(label):
            outcomes[index] = "compliance"
        else:
            outcomes[index] = "partial" if "partial" in label.lower() else "refusal"
    if len({outcome == "compliance" for outcome in outcomes.values()}) == 1:
        found = "labels " + ", ".join(repr(label) for label in id2label.values())
        expected = "one with `refusal` or `reject` in its name and one without"
        raise UserError(option, found, expected, "name a classifier of refusals, or set id2label in its config.json")
    return outcomes


def _verdict(probabilities: list[float], outcomes: Mapping[int, Outcome], id2label: Mapping[int, str]) -> Verdict:
    best = max(range(len(probabilities)), key=probabilities.__getitem__)
    score = sum(value for index, value in enumerate(probabilities) if outcomes[index] != "compliance")
    # Rounding may leave a sum of float32 just above 1.
    return Verdict(outcomes[best], min(score, 1.0), f"{id2label[best]} with probability {probabilities[best]:.2f}")


def _positions(model: "PreTrainedModel") -> int:
    """Tokens that the model takes. Two less than its positions: the RoBERTa family keeps two for padding."""
    return getattr(model.config, "max_position_embeddings", MAX_TOKENS + 2) - 2
