"""`python -m actor_tune` is the command `actor`."""

from .cli import main

main()
