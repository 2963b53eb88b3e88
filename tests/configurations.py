"""Overrides for small runs."""

from __future__ import annotations

from pathlib import Path

COVE = ("quantizer=cove", "quantizer.user_levels=[8,3]", "quantizer.item_levels=[12,4]")
ROW_WISE = ("embeddings.optimizer.name=rowwise_adagrad", "embeddings.sharding.default=row_wise")


def small_run(prepared: Path, output: Path | str = "unused", *overrides: str) -> list[str]:
    """DeepFM with two small layers on a small prepared folder, on CPU."""
    return [
        "data=synthetic",
        f"data.path={prepared}",
        f"output={output}",
        "model.hidden_units=[16,8]",
        "embeddings.dim=8",
        "trainer.device=cpu",
        "trainer.batch_size=240",
        "trainer.evaluation_batch_size=128",
        "trainer.epochs=2",
        "trainer.log_every=1",
        "trainer.shuffle_buffer=512",
        *overrides,
    ]
