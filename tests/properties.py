"""Settings of property tests; the number of their examples is that of the profile in ``tests/conftest.py``."""

from __future__ import annotations

from hypothesis import settings

few = settings(max_examples=settings.default.max_examples // 2)  # for examples that take long
