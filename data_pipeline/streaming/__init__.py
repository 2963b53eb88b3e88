"""A prepared folder -> batches: the rows of an epoch divided among ranks, shuffled, resumable."""
