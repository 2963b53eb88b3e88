"""Start a run from a finished one on other data: rows are matched by original id, all other weights are taken over.

- `source` opens the run to start from, and refuses one that does not fit;
- `matching` finds the former row of every row, and counts;
- `transfer` moves rows with their optimizer state, and dense parameters, codebooks and their state;
- `new_rows` starts the rows of ids that the run did not see.
"""
