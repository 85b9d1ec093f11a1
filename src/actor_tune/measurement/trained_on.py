"""What a model was trained on, as far as is known."""

import logging
from collections.abc import Sequence
from pathlib import Path

from ..engines.engine import Subject
from ..errors import UserError
from ..prompts.leakage import check_traces
from ..prompts.presets import read_source
from ..prompts.prompt import Prompt
from ..prompts.trace import Trace
from ..records.file import read, read_value
from ..records.lineage import Lineage
from ..records.run import POSITIONS_FILE, Position, Run
from ..storage.model_folder import is_local, model_folder

log = logging.getLogger(__name__)


def trained_on(model: str | Subject, sources: Sequence[str] = ()) -> list[Prompt | Trace]:
    """The prompts that `model` was trained on, as far as is known.

    ```python
    at.measure(model, at.starter("held_out"), trained_on=at.trained_on("run/model", ["mine.csv"]))
    ```

    **Arguments:**

    - `model`: a folder or Hub id, or a subject of that name. What a server answers for is not looked for on the Hub.
    - `sources`: run folders and files of prompts. The run that `model` lies in is known without; one that was moved, or
      is on the Hub, knows its prompts by their traces.

    **Raises:** `UserError` when a source is neither.
    """
    folders = [Path(source) for source in sources if Path(source).is_dir()]
    files = [source for source in sources if not Path(source).is_dir()]
    prompts: list[Prompt | Trace] = [prompt for file in files for prompt in read_source(file, "trained_on")]
    place = _place(model)
    if (place.parent / POSITIONS_FILE).is_file() and (place.parent / Run.FILE).is_file():
        folders.append(place.parent)
    for folder in folders:
        if not (folder / POSITIONS_FILE).is_file():
            raise UserError(f"`trained_on={folder}`", f"no {POSITIONS_FILE}", "the folder of a fit", "name a file")
        prompts += [position.asked for position in read_value(list[Position], folder / POSITIONS_FILE)]
    if (place / Lineage.FILE).is_file():
        known = read(Lineage, place).trained_on
        try:
            check_traces(known)
        except ValueError as error:
            fix = "copy the folder anew, or take this file away"
            raise UserError(place / Lineage.FILE, f"damaged ({error})", "what a fit wrote", fix) from None
        prompts += known  # after those that have words
    return prompts


def _place(model: str | Subject) -> Path:
    """The folder of `model`, on the Hub too; where that cannot be read, one line says so."""
    name = model if isinstance(model, str) else model.name
    here = isinstance(model, str) or not (model.base_url is not None or model.in_memory)
    if here and not is_local(name):
        try:
            return model_folder(name, weights=False)
        except UserError as error:
            fix = "if you know it, name it with `trained_on=FILE`"
            log.warning("%s: what it was trained on is not known (%s); %s", name, error.found, fix)
    return Path(name).resolve()
