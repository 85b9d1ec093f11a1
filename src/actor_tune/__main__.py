"""`python -m actor_tune` is the command `actor`."""

from .commands.cli import main

main()
