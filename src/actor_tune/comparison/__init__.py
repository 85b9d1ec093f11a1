"""Other methods beside ours, and probes of what a repair did: what exists only to be compared. Each of `methods/`
is a function that learns from the same prompts and is chosen by the same rule; nothing here decides how we repair.
"""
