"""The subcommands of ``cove``. The module of each has ``run(arguments)``, and its docstring is the text of ``--help``.

The modules that `COMMANDS` does not name are shared: `help`, `print_config`, and the `tables` and commands that others
print (`written`).
"""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    """A subcommand.

    Attributes:
        about: Description in one line.
        config: Configuration file in ``configs/``, without ``.yaml``; None for a command without settings.
        on_ranks: Whether several processes, started by torchrun, share its work.
    """

    about: str
    config: str | None
    on_ranks: bool = False


COMMANDS = {
    "prepare": Command("raw files to checked, encoded and split Parquet shards", "prepare"),
    "plan": Command("what a training run needs: placement, memory, traffic and time, before it runs", "plan"),
    "train": Command("train a model on prepared data; under torchrun on several processes", "train", on_ranks=True),
    "evaluate": Command("metrics of a run on a split", "evaluate", on_ranks=True),
    "predict": Command("scores of new rows", "predict"),
    "recommend": Command("the best items of a run for users, as Parquet", "recommend", on_ranks=True),
    "export": Command("codes, embeddings, an index or the model, as files for other programs", "export", on_ranks=True),
    "semantic_ids": Command("a tuple of tokens for every id, from exported codes", "semantic_ids"),
    "report": Command("pictures of a run, and one HTML page", "report"),
    "compare": Command("one table of several evaluated runs", "compare"),
    "experiment": Command("a grid of models, quantizers and seeds: runs, tables and pictures", "experiment"),
    "tune": Command("a hyper-parameter search with equal trials for every model and quantizer", "tune"),
    "paper": Command("every claim of the paper next to what was measured, in one table", "paper"),
    "popularity": Command("metrics of the most popular items: the baseline of sequential models", "popularity"),
    "cluster_items": Command("categories of items from their neighbors in sequences", "cluster_items"),
    "doctor": Command("check the installation, or complete it", None),
    "completion": Command("completion of this command for a shell", None),
}
ALIASES = {"grid": "experiment"}

FLAGS = ("-h", "--help", "--print-config", "--version")
OWN_CONFIGS = "--config-dir"
