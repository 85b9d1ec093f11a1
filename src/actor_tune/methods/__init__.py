"""Methods to compare: each learns from prompts, and gives back a change of the model that can be made and undone."""

from .method import Fitted, Gate, Method, Task

__all__ = ["Fitted", "Gate", "Method", "Task"]
