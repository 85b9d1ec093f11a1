"""Versions of what decides numbers, and the date."""

import platform
from datetime import datetime, timezone
from importlib.metadata import version

VERSIONS_OF = ("actor-tune", "torch", "transformers", "safetensors", "scikit-learn")


def versions() -> dict[str, str]:
    """Of this package, the libraries that decide numbers, and Python."""
    return {name: version(name) for name in VERSIONS_OF} | {"python": platform.python_version()}


def today() -> str:
    """The date in UTC, `2026-01-31`."""
    return datetime.now(timezone.utc).date().isoformat()
