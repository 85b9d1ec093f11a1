"""Chat models: loading and placing them, reading and changing what their blocks do, and writing a changed block back.
Everything here works on tensors and tokens; nothing knows what kind a prompt is of, or what an answer means.
"""
