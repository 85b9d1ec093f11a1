"""Searches for the recipe that suits one model and its prompts, by many trials of one study on one machine or many.

What it takes is trained by `repair` on prompts that no trial has seen. Optuna searches; nothing here does.
"""
