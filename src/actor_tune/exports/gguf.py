"""The trained model as a GGUF file, by llama.cpp's own converter and quantiser."""

import re
import shutil
from functools import partial
from pathlib import Path

from ..errors import UserError
from ..storage.model_folder import public_name
from . import llama_cpp
from .check import Made
from .source import Source


def write(source: Source, new: Path, where: Path, llama: Path | None, quantize: str | None, device: str) -> Made:
    """Write the file into the folder `new`, which becomes `where`.

    **Arguments:**

    - `llama`: llama.cpp's folder; None: the environment's LLAMA_CPP, or what is on the PATH.
    - `quantize`: how to pack it, such as `Q4_K_M`; None: in the 16 bits that are nearest to the checkpoint's.

    **Raises:** `UserError` when llama.cpp is not there, or says that it cannot.
    """
    if quantize is not None and not re.fullmatch(r"\w+", quantize, re.ASCII):
        raise UserError(f"`quantize={quantize}`", "no type", "one of llama.cpp's, such as Q4_K_M", "correct it")
    folder = llama_cpp.folder_of(llama)
    script = llama_cpp.converter(folder)
    packer = llama_cpp.quantizer(folder) if quantize else None
    stem = re.sub(r"[^\w.-]", "-", public_name(source.base).split("/")[-1]) + "-actor"
    plain = new / f"{stem}.gguf"
    whole = source.whole
    if whole is None:
        whole = new / "whole"
        whole.mkdir()
        source.write_whole(whole, where)
    llama_cpp.run([script, whole, "--outfile", plain, "--outtype", "auto", "--model-name", stem], plain)
    if whole.parent == new:
        shutil.rmtree(whole)
    made = plain
    if packer is not None and quantize is not None:
        made = new / f"{stem}-{quantize}.gguf"
        llama_cpp.run([packer, plain, made, quantize], made)
        plain.unlink()
    told = source.run.chat_template_kwargs
    by = llama_cpp.reader(folder, told)
    answered = partial(llama_cpp.answering, made, folder, told, device, source.max_reasoning_tokens, by) if by else None
    notes = [
        f"{made.name}: {made.stat().st_size / 1e6:.0f} MB, by {script.name}{f' and {packer.name}' if packer else ''}."
    ]
    return Made([made.name], answered, None if answered else "nothing here reads a GGUF file", notes=notes)
