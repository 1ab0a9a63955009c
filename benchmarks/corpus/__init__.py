"""Ten thousand records of every kind, always made of the same input: did a change leave them as they were?

``python -m benchmarks.corpus write FILE`` in each of two work trees, then ``… compare A B``.
"""
