"""A GGUF file with a Modelfile for Ollama.

Ollama runs no Jinja: of the chat template in a GGUF file it knows whether it looks like one of those that it ships, and
takes that one, or else none. So the template is written out here in Ollama's own language, where that says the same
text to conversations that are tried, and is left out, which is told, where it does not.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import GenerationConfig, PreTrainedTokenizerBase

from ..models.origin import Origin
from ..models.patched import patch_base
from ..models.tokenizer import load_tokenizer
from ..storage.loading import loading
from ..storage.model_files import AGAIN, GENERATION_CONFIG
from . import gguf
from .check import Made
from .source import Source

MODELFILE = "Modelfile"
SYSTEM, USER, ANSWER, AGAIN_USER = "(the system prompt)", "(the query)", "(the answer)", "(the second query)"

Turns = list[dict[str, str]]


@dataclass(frozen=True)
class Pieces:
    """What a chat template writes around the texts of a conversation.

    - `after_user`: up to where the answer begins; `default`: the system prompt where there is none, if any.
    """

    before_system: str
    after_system: str
    before_user: str
    after_user: str
    after_answer: str
    default: str | None

    def written(self, turns: Turns) -> str:
        """A conversation, as Ollama writes it by `template`."""
        text, system = "", self.default
        for turn in turns:
            if turn["role"] == "system":
                system = turn["content"]
            elif turn["role"] == "user":
                if system:
                    text += self.before_system + system + self.after_system
                text, system = text + self.before_user + turn["content"] + self.after_user, None
            else:
                text += turn["content"] + self.after_answer
        return text

    @property
    def template(self) -> str:
        """In Ollama's language: it is filled in for each query, with the answer to it."""
        system = f"{{{{ if .System }}}}{self.before_system}{{{{ .System }}}}{self.after_system}{{{{ end }}}}"
        user = f"{{{{ if .Prompt }}}}{self.before_user}{{{{ .Prompt }}}}{self.after_user}{{{{ end }}}}"
        return f"{system}{user}{{{{ .Response }}}}{self.after_answer}"


def write(source: Source, new: Path, where: Path, llama: Path | None, quantize: str | None, device: str) -> Made:
    """As `gguf.write`, and the Modelfile beside the file."""
    whole = source.whole
    tokens = whole
    if tokens is None:  # the base's tokenizer is that of what is made of it
        tokens = patch_base(source.patch, source.base)
    tokenizer = load_tokenizer(str(tokens), Origin(tokens))
    made = gguf.write(source, new, where, llama, quantize, device)
    pieces = pieces_of(tokenizer, source.run.chat_template_kwargs)
    text = modelfile(made.files[0], pieces, _ends(tokens, tokenizer))
    (new / MODELFILE).write_text(text, encoding="utf-8")
    notes = [*made.notes]
    if pieces is None:
        notes.append(
            "The chat template cannot be said in Ollama's language: it takes the one of its own that looks like it, or "
            f"none. Write a TEMPLATE into {MODELFILE} before you use it."
        )
    if source.run.settings.get("system_prompt"):
        notes.append("It was trained with a system prompt, which the Modelfile does not have.")
    return replace(made, files=[*made.files, MODELFILE], notes=notes)


def modelfile(file: str, pieces: Pieces | None, ends: list[str]) -> str:
    """The Modelfile of a GGUF `file`, which the tokens `ends` end an answer of."""
    lines = [f"FROM ./{file}"]
    if pieces:
        lines.append(f'TEMPLATE """{pieces.template}"""')
        if pieces.default:
            lines.append(f'SYSTEM """{pieces.default}"""')
    lines += ["# Greedy, as the safety gate asked it.", "PARAMETER temperature 0", "PARAMETER repeat_penalty 1"]
    lines += [f'PARAMETER stop "{end}"' for end in ends if '"' not in end]
    return "\n".join(lines) + "\n"


def pieces_of(tokenizer: PreTrainedTokenizerBase, told: dict[str, Any]) -> Pieces | None:
    """What the chat template of `tokenizer` writes around texts; None where that is not all that it does.

    **Arguments:**

    - `told`: what the template is told besides.
    """
    ids = list(tokenizer("a")["input_ids"])
    # What begins every text is put there by llama.cpp too, unless the tokenizer leaves that to the template.
    begin = str(tokenizer.bos_token) if ids[:1] == [tokenizer.bos_token_id] else ""

    def say(turns: Turns) -> str:
        text = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **told))
        return text.removeprefix(begin)

    system, user = {"role": "system", "content": SYSTEM}, {"role": "user", "content": USER}
    answer, second = {"role": "assistant", "content": ANSWER}, {"role": "user", "content": AGAIN_USER}
    tried = [[user], [system, user], [user, answer, second], [system, user, answer, second]]
    try:
        said = [say(turns) for turns in tried]
    except (TemplateError, LookupError, TypeError, ValueError):  # what it refuses cannot be written, which is told
        return None
    pieces = _pieces(said, tokenizer)
    if pieces is None or any(pieces.written(turns) != text for turns, text in zip(tried, said, strict=True)):
        return None
    parts = (pieces.template, pieces.default or "")
    return None if any('"""' in part or part.count("{{") > len(TAGS) for part in parts) else pieces


TAGS = ("if .System", ".System", "end", "if .Prompt", ".Prompt", "end", ".Response")
"""Of a template: one with more has braces of the chat template in it, which Ollama would take for its own."""


def _pieces(said: list[str], tokenizer: PreTrainedTokenizerBase) -> Pieces | None:
    """From what the template says to a query; with a system prompt; with a turn before; with both."""
    plain, with_system, _, turns = said
    start, _, after_user = plain.partition(USER)
    before_system, _, rest = with_system.partition(SYSTEM)
    between, _, _ = rest.partition(USER)
    _, _, rest = turns.partition(ANSWER)
    after, _, _ = rest.partition(AGAIN_USER)
    default = None
    if between.endswith(start):
        before_user = start
    elif start.startswith(before_system) and start.endswith(between):
        default = start[len(before_system) : len(start) - len(between)]
        before_user = _common_end(between, after, [*tokenizer.get_added_vocab()])
    else:
        return None
    if default == "" or not after.endswith(before_user):
        return None
    after_system, after_answer = (text.removesuffix(before_user) for text in (between, after))
    return Pieces(before_system, after_system, before_user, after_user, after_answer, default)


def _common_end(one: str, other: str, tokens: list[str]) -> str:
    """How both texts end, from the last of the `tokens` on, where there is one."""
    length = 0
    while length < min(len(one), len(other)) and one[-1 - length] == other[-1 - length]:
        length += 1
    common = one[len(one) - length :]
    return common[max(0, *(common.rfind(token) for token in tokens)) :]


def _ends(folder: Path, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The tokens that end an answer."""
    ids: Callable[[Any], list[int]] = lambda value: value if isinstance(value, list) else [value]  # noqa: E731
    found = ids(tokenizer.eos_token_id)
    if (folder / GENERATION_CONFIG).is_file():
        with loading(folder / GENERATION_CONFIG, "how to generate", AGAIN):
            found = [*ids(GenerationConfig.from_pretrained(folder).eos_token_id), *found]
    return [str(tokenizer.convert_ids_to_tokens(one)) for one in dict.fromkeys(found) if one is not None]
