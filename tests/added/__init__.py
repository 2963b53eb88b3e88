"""A head, a metric and a task that the package does not know: the worked examples of CONTRIBUTING.md."""
