"""A prepared folder -> batches: the rows of an epoch shared among ranks, shuffled, resumable."""
