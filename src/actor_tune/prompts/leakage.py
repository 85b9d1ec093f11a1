"""Prompts to be measured that are near-duplicates of prompts trained on. Pure."""

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import CountVectorizer

from .prompt import Prompt
from .trace import Trace

SIMILARITY = 0.7
"""Jaccard similarity of character 4-grams, 0..1, from which two prompts count as the same. Chosen on pairs of prompts:
another article, a comma or "can I" for "do I" stay above it, another object of the sentence falls below
(`tests/test_leakage.py`)."""

CHUNK = 512


@dataclass(frozen=True)
class Leak:
    """A `prompt` to be measured, the prompt trained on that it is like, and their similarity, 0..1."""

    prompt: Prompt
    like: Prompt | Trace
    similarity: float


def find_leaks(evaluation: Sequence[Prompt], training: Sequence[Prompt | Trace]) -> list[Leak]:
    """The prompts of `evaluation` that are like one of `training`, each with the likest, in order.

    Case, punctuation and spacing do not count, and neither do system prompts. Harmful prompts are compared with harmful
    ones and benign with benign: having trained on the harmful twin of a benign prompt, or on a harmful prompt under the
    wrong kind, flatters no score, and the safety gate must go on seeing it.
    """
    leaks = []
    for harmful in (True, False):
        new = [prompt for prompt in evaluation if (prompt.kind == "harmful") == harmful]
        old = [prompt for prompt in training if (prompt.kind == "harmful") == harmful]
        if new and old:
            leaks += _alike(new, old)
    place = {id(prompt): row for row, prompt in enumerate(evaluation)}
    return sorted(leaks, key=lambda leak: place[id(leak.prompt)])


def traces(prompts: Sequence[Prompt]) -> list[Trace]:
    """Of each prompt what `find_leaks` compares."""
    return [Trace(prompt.kind, prompt.set, base64.b64encode(_grams(prompt).tobytes()).decode()) for prompt in prompts]


def check_traces(known: Sequence[Trace]) -> None:
    """Stop with a `ValueError` at one that was not made by `traces`."""
    for trace in known:
        if (np.diff(_grams(trace).astype(np.int64)) <= 0).any():
            raise ValueError("numbers that are not sorted")


def _alike(new: Sequence[Prompt], old: Sequence[Prompt | Trace]) -> list[Leak]:
    each = [_grams(prompt) for prompt in (*old, *new)]
    _, columns = np.unique(np.concatenate(each), return_inverse=True)
    sizes = np.array([len(grams) for grams in each], dtype=np.int32)
    ends = np.concatenate([[0], sizes.cumsum()])
    grams = csr_array((np.ones(len(columns), dtype=np.int32), columns, ends))
    leaks = []
    for start in range(0, len(new), CHUNK):
        rows = slice(len(old) + start, len(old) + min(start + CHUNK, len(new)))
        shared = (grams[rows] @ grams[: len(old)].T).toarray()
        union = sizes[rows, None] + sizes[None, : len(old)] - shared
        similarity = shared / np.maximum(union, 1)
        for row, best in enumerate(similarity.argmax(axis=1)):
            if similarity[row, best] >= SIMILARITY:
                leaks.append(Leak(new[start + row], old[best], float(similarity[row, best])))
    return leaks


def _grams(prompt: Prompt | Trace) -> np.ndarray:
    """Numbers of its 4-grams, each once, sorted: (gram) little-endian uint32."""
    if isinstance(prompt, Trace):
        return np.frombuffer(base64.b64decode(prompt.grams, validate=True), dtype="<u4")
    return np.array(sorted({zlib.crc32(gram.encode()) for gram in _analyse(_words(prompt))}), dtype="<u4")


def without(prompts: Sequence[Prompt], leaks: Sequence[Leak]) -> list[Prompt]:
    """`prompts` but those that leaked."""
    leaked = {leak.prompt for leak in leaks}
    return [prompt for prompt in prompts if prompt not in leaked]


def _words(prompt: Prompt) -> str:
    turns = [turn.content for turn in prompt.context if turn.role != "system"]
    return " ".join([*turns, prompt.text])


def _normal(text: str) -> str:
    words = "".join(character if character.isalnum() else " " for character in text.casefold()).split()
    return " ".join(words) or text  # of signs alone, the signs count


_analyse = CountVectorizer(analyzer="char_wb", ngram_range=(4, 4), preprocessor=_normal).build_analyzer()
