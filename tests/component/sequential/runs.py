"""Overrides for small runs on lists."""

from __future__ import annotations

from pathlib import Path


def small_run(prepared: Path, model: str, output: Path | str = "unused", *overrides: str) -> list[str]:
    """One of the small models on a small prepared folder of lists, on CPU."""
    return [
        "data=aotm",
        f"data.path={prepared}",
        f"output={output}",
        f"model._target_=tests.unit.sequential.models.{model}",
        "~model.hidden_units",
        "~model.dropout",
        "embeddings.dim=8",
        "evaluation.ndcg_at=[3,5]",
        "evaluation.hit_rate_at=[3,5]",
        "trainer.early_stopping.metric=paper_ndcg@5",
        "trainer.device=cpu",
        "trainer.optimizer.learning_rate=0.001",
        "trainer.warmup_steps=0",
        "trainer.batch_size=32",
        "trainer.evaluation_batch_size=16",
        "trainer.epochs=2",
        "trainer.log_every=1",
        "trainer.shuffle_buffer=64",
        *overrides,
    ]
