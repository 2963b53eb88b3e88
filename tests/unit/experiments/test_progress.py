"""The estimate of the time left."""

from __future__ import annotations

import pytest

from cove_dist.experiments.progress import Estimate, JobProgress, duration


def test_jobs_take_what_others_of_their_kind_took() -> None:
    estimate = Estimate(["a", "a", "b", "c"], {"a": [10.0, 20.0], "b": [100.0]}, at_once=1)
    assert estimate.remaining() == pytest.approx(15 + 15 + 100 + 130 / 3), "one of an unknown kind: the mean of all"
    estimate.done("c", 5.0)
    estimate.done("a", None)
    assert estimate.remaining() == pytest.approx(15 + 100)


def test_concurrent_jobs_share_the_time() -> None:
    assert Estimate(["a"] * 4, {"a": [10.0]}, at_once=2).remaining() == 20.0
    assert Estimate(["a"], {"a": [10.0]}, at_once=2).remaining() == 10.0, "the last job runs without another"


def test_running_jobs_take_what_is_left_of_their_time() -> None:
    known = {"a": [60.0], "b": [10.0]}
    estimate = Estimate(["a", "b", "a"], known, at_once=2)
    assert estimate.remaining([("a", 50.0), ("b", 2.0)]) == 8 + 60, "the third begins when the second ends"
    estimate.done("b", None)
    assert estimate.remaining([("a", 50.0), ("a", 1.0)]) == 59, "the longer of two"
    assert estimate.remaining([("a", 50.0)]) == 60, "one runs, and one begins on the free place"
    assert Estimate(["b"], known, at_once=2).remaining([("b", 30.0)]) == 0.0


def test_a_job_that_takes_longer_than_expected_has_no_time_left_to_show(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "cove_dist.experiments.progress")
    progress = JobProgress("mine", total=3, done=0, estimate=Estimate(["a", "a", "b"], {"b": [7530.0]}, at_once=2))
    progress.begin("first", "a")
    progress.begin("second", "b")
    progress.finish("first", "a", "finished")
    assert "1/3  first: finished, 0 s; about 2 h 05 min left" in caplog.messages
    progress.begin("third", "a")
    progress.finish("second", "b", "finished")
    assert caplog.messages[-1] == "2/3  second: finished, 0 s", "not: about 0 s left"


def test_nothing_is_known_before_the_first_job_is_done() -> None:
    estimate = Estimate(["a", "a"], {}, at_once=1)
    assert estimate.remaining() is None
    estimate.done("a", 3.0)
    assert estimate.remaining() == 3.0
    estimate.done("a", 3.0)
    assert estimate.remaining() == 0.0


def test_durations() -> None:
    assert [duration(s) for s in (0.4, 59.6, 200, 7500)] == ["0 s", "1 min 0 s", "3 min 20 s", "2 h 05 min"]
