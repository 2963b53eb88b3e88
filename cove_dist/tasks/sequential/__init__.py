"""Continuation of lists: sequence models on the items of a list, scored against all items (paper, section 4.2)."""
