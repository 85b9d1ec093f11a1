"""The repair of over-refusal: which block, which direction, where activations should go (`rules`, the paper's algorithm
beside its equations), training, strength, and the gate at its end. What changes weights in order to repair belongs
here; other methods, for comparison, do not.
"""
