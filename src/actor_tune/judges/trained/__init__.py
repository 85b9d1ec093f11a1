"""The default judge: features of an answer, weighed by a regression that was trained on written answers, with the data
it was trained on. What other judges share does not belong here.
"""
