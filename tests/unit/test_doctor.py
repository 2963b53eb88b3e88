"""The installation check."""

from __future__ import annotations

import pytest

from cove_dist import doctor


def test_this_installation_is_sound(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        doctor.main()
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "torchrec" in out
    assert "backend" in out


def test_a_triple_that_does_not_match_is_named_with_the_remedy() -> None:
    [problem] = doctor.mismatches({"torch": "2.13.0+cpu", "fbgemm": "1.7.0", "torchrec": "1.8.0"})
    assert "fbgemm 1.7.0" in problem
    assert "make setup" in problem


@pytest.mark.parametrize(
    "versions", [("2.13.1+cu130", "1.8.0", "1.8.0"), ("2.11.0+cpu", "1.6.0", "1.6.1")], ids=["newest", "oldest"]
)
def test_patch_releases_and_local_builds_of_all_tested_versions_are_accepted(versions: tuple[str, str, str]) -> None:
    assert doctor.mismatches(dict(zip(("torch", "fbgemm", "torchrec"), versions, strict=True))) == []


def test_packages_from_two_tested_sets_of_versions_are_refused() -> None:
    [problem] = doctor.mismatches({"torch": "2.11.0", "fbgemm": "1.8.0", "torchrec": "1.8.0"})
    assert "torch 2.11.0" in problem
    assert "torch 2.13.0" in problem


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "OTHERS", ("no-such-package",))
    with pytest.raises(SystemExit) as ended:
        doctor.main()
    assert ended.value.code == 1
    assert "no-such-package: not installed" in capsys.readouterr().err
