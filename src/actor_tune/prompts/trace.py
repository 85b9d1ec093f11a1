"""What tells a prompt from others without its words; made and compared in `leakage`."""

from dataclasses import dataclass

from .prompt import Kind


@dataclass(frozen=True)
class Trace:
    """What tells a prompt from others, for a file that is published: its words cannot be read there.

    Who tries can piece some of them together: it is no secret, only not in the open.

    - `grams`: CRC-32 of its character 4-grams, sorted, 4 bytes each (little endian), in base64.
    """

    kind: Kind
    set: str
    grams: str

    @property
    def text(self) -> str:
        """In the place of the prompt's own."""
        return "(a prompt that the model's own record knows)"
