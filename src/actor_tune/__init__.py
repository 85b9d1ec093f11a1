"""Repair over-refusal of chat models by training one transformer block (ACTOR, arXiv 2507.04250)."""

from importlib.metadata import version

__version__ = version("actor-tune")
