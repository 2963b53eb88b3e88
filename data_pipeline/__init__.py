"""Raw interaction files -> checked, encoded, sharded Parquet -> streamed batches. Knows batches, never models."""
