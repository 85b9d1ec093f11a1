"""Repair over-refusal of chat models by training one transformer block (ACTOR, arXiv 2507.04250).

    import actor_tune as at

    model = at.load("MODEL")
    fit = at.fit(model, at.read("mine.csv"))
    fit.save("run")

What there is, is listed in `__init__.pyi`; names are imported when they are used, so that judging, reports and
`import actor_tune` load no torch.
"""

from importlib.metadata import version

import lazy_loader

__version__ = version("actor-tune")
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
