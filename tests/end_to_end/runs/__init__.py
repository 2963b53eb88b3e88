"""Whole runs of a program in the process of the test: trained, stopped, resumed, damaged, reported."""
