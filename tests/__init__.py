"""Tests. Some train models of their own, which configurations name."""

from cove_dist.targets import allow_targets

allow_targets("tests")
