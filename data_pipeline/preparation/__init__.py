"""Raw interaction files -> checked, split, encoded, sharded Parquet, in a folder that is complete or absent."""
