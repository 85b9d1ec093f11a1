"""The trained model as the folder that vLLM serves."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path

from ..engines.engine import PORTION
from ..engines.local import local_engine
from ..engines.vllm import vllm_engine
from ..errors import UserError
from ..models.load import described, load
from ..models.origin import Origin
from ..models.placement import Placement
from .check import Answering, Made
from .source import Source


def write(source: Source, new: Path, where: Path, placement: Placement) -> Made:
    """Write the folder into `new`, which becomes `where`, and look for what vLLM needs in it.

    **Raises:** `UserError` when the model cannot be had, or lacks something.
    """
    source.write_whole(new, where)
    config, _ = described(source.base, Origin(new), placement.trust_remote_code)
    if not config.architectures:
        raise UserError(where, "no `architectures` in its config", "the class of the model", "write it there")
    files = [file.name for file in sorted(new.iterdir())]
    return Made(files, partial(_answering, new, source, placement))


@contextmanager
def _answering(folder: Path, source: Source, placement: Placement) -> Iterator[Answering]:
    """vLLM where it is installed, else transformers: of what was written, too, but not by what it was written for."""
    told = source.run.chat_template_kwargs
    if importlib.util.find_spec("vllm") is not None:
        thought, code = source.max_reasoning_tokens, placement.trust_remote_code
        engine = vllm_engine(str(folder), None, "auto", told, thought, code)
        yield Answering(engine, f"vLLM {version('vllm')}")
        return
    chat_model = load(str(folder), placement, chat_template_kwargs=told)
    engine = local_engine(chat_model, max_reasoning_tokens=source.max_reasoning_tokens)
    yield Answering(engine, f"transformers {version('transformers')}, and not vLLM", PORTION)
