"""The default judge: features of an answer, weighed by regressions, with the written answers that these were trained
on. What other judges share does not belong here.
"""
