"""Prompts: what they are, where they are read from, how they are split, and which are alike. What needs to know only
what is asked belongs here; answers and models do not.
"""
