"""A trained model made public, and made again from what is public: its card, what is uploaded to the Hub beside it, and
the check that the same fit gives the same bytes. Nothing of the user's machine is in it, and none of their prompts
unless they say so. Nothing is trained or measured here.
"""
