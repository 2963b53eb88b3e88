"""Quantizers that a new run may not have; an earlier run that has one can still be read and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cove_dist.checkpoints.files import CheckpointFolder
from cove_dist.config import RunConfig
from cove_dist.config.yaml_files import plain, read_yaml
from cove_dist.errors import ConfigError
from cove_dist.runs import CHECKPOINTS, CONFIG_FILE, SUMMARY_FILE
from cove_dist.tasks.category_config import CategoryConfig


def run_there(config: RunConfig) -> dict[str, Any]:
    """Return the composed configuration of the run that the folder of this one holds; empty if this one is new.

    Training continues such a run, and compares its settings with those here, or refuses to overwrite it. A folder
    without a checkpoint and without a summary has nothing to continue; a debug run leaves its folder as it is.
    """
    folder = Path(config.output)
    holds_run = (folder / SUMMARY_FILE).is_file() or CheckpointFolder(folder / CHECKPOINTS).steps()
    if config.trainer.debug or not holds_run or not (folder / CONFIG_FILE).is_file():
        return {}
    return plain(read_yaml(folder / CONFIG_FILE))


def check_quantizer(config: RunConfig, option: str | None) -> None:
    """Refuse an option of the group ``quantizer`` that its settings contradict, and steps before the first one.

    Args:
        config: Configuration of the run.
        option: What ``quantizer=`` chose.

    Raises:
        ConfigError: With the settings to change.
    """
    quantizer = config.quantizer
    if option == "none" and quantizer.levels():
        entity, levels = next(iter(quantizer.levels().items()))
        raise ConfigError(
            f"quantizer.{entity}_levels = {list(levels)}: not with quantizer=none, which quantizes nothing; choose"
            " quantizer=cove or quantizer=cove_items"
        )
    if option == "negatives" and not _reads_codes(config):
        raise ConfigError(
            "quantizer = negatives: nothing would read its codes, which change no embedding; set"
            " negatives.category_share=0.2 negatives.category_codes=quantizer in collaborative filtering, or with"
            " sequential.softmax=sampled; for codes that are added to embeddings choose quantizer=cove_items"
        )
    step, batches = quantizer.kmeans_step, quantizer.kmeans_batches
    if quantizer.start == "kmeans" and batches > step and config.warm_start.run is None:
        raise ConfigError(
            f"quantizer.kmeans_batches = {batches}: quantizer.kmeans_step = {step} has only {step} steps up to it;"
            f" allowed: 1 to {step}, or a later kmeans_step"
        )


def _reads_codes(config: RunConfig) -> bool:
    """Return whether codes change the model, its negatives, or the rows of unseen ids."""
    quantizer, negatives = config.quantizer, getattr(config, "negatives", None)
    in_model = quantizer.alpha > 0 or quantizer.omega_c > 0 or (quantizer.beta > 0 and quantizer.omega_q > 0)
    in_negatives = isinstance(negatives, CategoryConfig) and negatives.reads_quantizer
    return in_model or in_negatives or config.embeddings.unseen == "codes"
