"""Values on the command line that Hydra's grammar would refuse, or read as something else than text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from cove_dist.config.composition import compose_yaml
from cove_dist.config.overrides import literal, text_of
from cove_dist.errors import ConfigError
from cove_dist.tasks.configuration import load_run_config

ODD = ["ä", "a b", "a=b", "a,b", "[x]/y", "x[1]", "it's", 'say "x"', "2026", "1e5", "true", "a{b}", "#a", "a;b", "x!"]
ODD += ["*.raw", "日本", r"a\b'c", "a\\", "choice(a,b)"]


@pytest.mark.parametrize("name", ODD)
def test_a_path_is_taken_as_it_is_written(name: str) -> None:
    config, composed = load_run_config([f"output=runs/{name}", f"data.path={name}"])
    assert config.output == composed.output == f"runs/{name}"
    assert config.data.path == name
    assert compose_yaml("prepare", [f"data.source={name}"]).data.source == name
    assert compose_yaml("evaluate", [f"run={name}"]).run == name


@given(st.text(st.characters(exclude_characters="~$\0\n\r"), min_size=1))
def test_any_text_is_quoted_so_that_it_is_read_back(text: str) -> None:
    path = f"runs/{text}"  # which does not look as if it were quoted already
    assert text_of(literal(f"output={path}")) == path


def test_a_tilde_is_the_home_folder() -> None:
    assert load_run_config(["output=~/runs/x"])[0].output == str(Path.home() / "runs" / "x")
    assert compose_yaml("predict", ["run=a", "rows=~/new rows.csv"]).rows == str(Path.home() / "new rows.csv")
    assert literal("users=[1,2]") == "users=[1,2]" and literal("users=all") == "users=all"


def test_what_is_quoted_a_list_a_mapping_or_null_stays_as_it_is() -> None:
    for override in ("output='a b'", 'output="a"', "output=null", "trainer.epochs=3", "a.b=[1,2]", "~a", "x={a: 1}"):
        assert literal(override) == override


def test_several_values_are_one_text_which_the_settings_refuse() -> None:
    with pytest.raises(ConfigError, match=r"quantizer\.item_levels = 100,10: input should be a list"):
        load_run_config(["quantizer=cove", "quantizer.item_levels=100,10"])


def test_a_grid_file_may_have_any_name(tmp_path: Path) -> None:
    for name in ("2026.yaml", "my grid, ä=[1].yaml", "true.yaml"):
        path = tmp_path / "a=b, ä [c]" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("title: mine\nmodels: {a: []}\n")
        composed = compose_yaml("experiment", [f"file={path}", "seeds=[7]"])
        assert (composed.title, OmegaConf.to_container(composed.models), composed.seeds) == ("mine", {"a": []}, [7])
