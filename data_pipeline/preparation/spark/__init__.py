"""The steps of preparation on a Spark cluster: DuckDB reads the files in Spark's tasks, Spark SQL does the rest."""
