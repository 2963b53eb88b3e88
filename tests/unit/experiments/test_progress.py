"""The estimate of the time left."""

from __future__ import annotations

import pytest

from cove_dist.experiments.progress import Estimate, duration


def test_jobs_take_what_others_of_their_kind_took() -> None:
    estimate = Estimate(["a", "a", "b", "c"], {"a": [10.0, 20.0], "b": [100.0]}, at_once=1)
    assert estimate.remaining() == pytest.approx(15 + 15 + 100 + 130 / 3), "one of an unknown kind: the mean of all"
    estimate.done("c", 5.0)
    estimate.done("a", None)
    assert estimate.remaining() == pytest.approx(15 + 100)


def test_concurrent_jobs_share_the_time() -> None:
    assert Estimate(["a"] * 4, {"a": [10.0]}, at_once=2).remaining() == 20.0
    assert Estimate(["a"], {"a": [10.0]}, at_once=2).remaining() == 10.0, "the last job runs without another"


def test_nothing_is_known_before_the_first_job_is_done() -> None:
    estimate = Estimate(["a", "a"], {}, at_once=1)
    assert estimate.remaining() is None
    estimate.done("a", 3.0)
    assert estimate.remaining() == 3.0
    estimate.done("a", 3.0)
    assert estimate.remaining() == 0.0


def test_durations() -> None:
    assert [duration(s) for s in (0.4, 59.6, 200, 7500)] == ["0 s", "1 min 0 s", "3 min 20 s", "2 h 05 min"]
