"""Measurements: what is asked of a model, its answers, their rates and scores with intervals, what changed since a
baseline, and the safety gate. Numbers about answers belong here; nothing here changes a model.
"""
