"""The default judge: features of an answer, weighed by regressions. What other judges share, and what these were
trained on, does not belong here.
"""
