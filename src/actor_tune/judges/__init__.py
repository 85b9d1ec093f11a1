"""Judges: from a prompt and its answer to a verdict. Each is a function of the type `verdict.Judge`, found by name in
`choose`. A judge reads text alone: it knows no model that answered and computes no rate.
"""
