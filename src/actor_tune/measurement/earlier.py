"""An earlier measurement, as it is stored, to compare with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..engines.engine import Subject
from ..errors import UserError
from ..records.file import read, read_rows
from ..records.response import RESPONSES_FILE, Response, ResponseRow, response_of
from ..records.results import Results


@dataclass(frozen=True)
class EarlierMeasurement:
    """An earlier measurement, whose answers are not asked for again.

    - `subject`: the model that was measured, to be asked for what its `responses` lack.
    - `settings`: what they depend on.
    """

    folder: Path
    subject: Subject
    settings: Mapping[str, Any]
    responses: list[Response]

    @staticmethod
    def is_in(folder: str | Path) -> bool:
        """Whether `folder` has one, whole or not."""
        return (Path(folder) / RESPONSES_FILE).is_file()

    @classmethod
    def read(cls, folder: str | Path, subject: Callable[[str], Subject]) -> "EarlierMeasurement":
        """The measurement in `folder`.

        **Arguments:**

        - `subject`: gives the model of a name, to be asked in the same way as the model that is compared.

        **Raises:** `UserError` when it did not end, is damaged, or a newer version wrote it.
        """
        folder = Path(folder)
        file = folder / Results.FILE
        if not file.is_file():
            fix = "run that measurement again, and it goes on"
            raise UserError(f"`baseline={folder}`", "a measurement that did not end", file.name, fix)
        results = read(Results, folder)
        responses = [response_of(row) for row in read_rows(ResponseRow, folder / RESPONSES_FILE)]
        return cls(folder, subject(results.model), results.settings, responses)
