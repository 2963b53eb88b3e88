"""Warnings of settings that begin to act after the last step of a run: those of every task."""

from __future__ import annotations

from cove_dist.config.run import RunConfig


def late_settings(config: RunConfig, steps: int) -> list[str]:
    """Return a warning for each setting that begins to act after the last step.

    Args:
        config: Configuration of the run.
        steps: Optimizer steps of the run.
    """
    warmup, quantizer, warnings = config.trainer.warmup_steps, config.quantizer, []
    if warmup >= steps:
        consequence = "the learning rates never reach their values"
        warnings.append(too_late("trainer.warmup_steps", warmup, steps, consequence, steps // 10))
    if not quantizer.levels():
        return warnings
    start, every, warm = quantizer.kmeans_step, quantizer.revive_every, config.warm_start.run is not None
    if quantizer.start == "kmeans" and start > steps and not warm:
        consequence = "codebooks stay random and do not start by k-means"
        earlier = max(1, steps // 2)
        fewer = f" quantizer.kmeans_batches={earlier}" if earlier < quantizer.kmeans_batches else ""
        warnings.append(too_late("quantizer.kmeans_step", start, steps, consequence, earlier) + fewer)
    if every is not None and every > steps:
        consequence = "no unused code is re-initialized"
        warnings.append(too_late("quantizer.revive_every", every, steps, consequence, max(1, steps // 4)))
    return warnings


def too_late(key: str, value: int, steps: int, consequence: str, instead: int) -> str:
    """Return the warning of a setting that counts steps.

    Args:
        key, value: The setting.
        steps: Optimizer steps of the run.
        consequence: What holds in the whole run.
        instead: A value that acts.
    """
    return f"{key} = {value}: training has {steps} steps, so that {consequence}. Set fewer, such as {key}={instead}"
