"""Versions of what decides numbers."""

import platform
from importlib.metadata import version

VERSIONS_OF = ("actor-tune", "torch", "transformers", "safetensors", "scikit-learn")


def versions() -> dict[str, str]:
    """Of this package, the libraries that decide numbers, and Python."""
    return {name: version(name) for name in VERSIONS_OF} | {"python": platform.python_version()}
