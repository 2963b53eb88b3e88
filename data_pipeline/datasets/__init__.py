"""One short file per data set: where it comes from, how its raw form is read."""
