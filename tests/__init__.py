"""Tests. Some train models of their own, which configurations name."""

from cove_dist.allowed_packages import allow_targets

allow_targets("tests")
