"""The quantizers of users and items."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Any, Literal, get_args

from annotated_types import Gt, Lt

from cove_dist.config.base import settings
from cove_dist.errors import ConfigError
from cove_dist.types import PositiveFloat, PositiveInt, UnitInterval
from data_pipeline.schema import Entity

# Keys that a resumed run may change; the first one cannot change a metric, a search can by rounding
QUANTIZER_WITHOUT_EFFECT = ("quantizer.warn_perplexity",)
QUANTIZER_RESUMABLE = (*QUANTIZER_WITHOUT_EFFECT, "quantizer.search")


@settings
class QuantizerConfig:
    user_levels: tuple[PositiveInt, ...] | None
    item_levels: tuple[PositiveInt, ...] | None
    cascade: Literal["codes", "residual"]
    alpha: UnitInterval
    beta: UnitInterval
    omega_q: UnitInterval
    omega_c: UnitInterval
    loss_reduction: Literal["mean", "sum"]
    codebook_gradient: Literal["task_and_quantization", "quantization"]
    learning: Literal["gradient", "ema"]
    ema_decay: Annotated[float, Gt(0), Lt(1)]
    start: Literal["random", "kmeans"]
    kmeans_step: PositiveInt
    kmeans_batches: PositiveInt
    init_std: PositiveFloat | None
    revive_every: PositiveInt | None
    warn_perplexity: UnitInterval
    search: Literal["auto", "chunked", "compiled", "faiss", "triton", "triton_tf32x3"]

    def __post_init__(self) -> None:
        for key in ("user_levels", "item_levels"):
            levels = getattr(self, key)
            if levels is None:
                continue
            if not levels:
                raise ValueError(f"{key} = []: allowed are strictly falling sizes such as [100, 10], or null")
            if self.cascade == "codes" and any(a <= b for a, b in pairwise(levels)):
                raise ValueError(
                    f"{key} = {list(levels)}: allowed are strictly falling sizes, fine to coarse, such as [100, 10],"
                    " or any sizes with quantizer.cascade=residual"
                )

    def check_device(self, device_type: str) -> None:
        """Refuse a search that this device does not have, or whose package is not installed.

        Raises:
            ConfigError: With the values that are allowed.
        """
        from cove_dist.quantization.search import Search, is_available  # with torch

        if not self.levels() or is_available(self.search, device_type):
            return
        needs = "cpu and the package faiss-cpu" if self.search == "faiss" else "cuda and the package triton"
        allowed = ", ".join(name for name in get_args(Search) if is_available(name, device_type))
        raise ConfigError(f"quantizer.search = {self.search}: needs {needs}; allowed here, on {device_type}: {allowed}")

    def read_only(self) -> QuantizerConfig:
        """Return the settings for codebooks that nothing trains, which every device accepts."""
        return replace(self, search="auto")

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `CascadedQuantizer` that are settings, the same for users and items."""
        names = ("cascade", "alpha", "beta", "loss_reduction", "codebook_gradient", "learning", "ema_decay", "search")
        return {name: getattr(self, name) for name in names}

    def maintenance(self) -> dict[str, Any]:
        """Return the arguments of `MaintenanceSettings` that are settings."""
        return {name: getattr(self, name) for name in ("start", "kmeans_step", "kmeans_batches", "revive_every")}

    def signature(self) -> dict[str, Any]:
        """Return what must agree for the codebooks of a checkpoint to fit; None where nothing is quantized."""
        signed = {f"quantizer.{name}": getattr(self, name) for name in ("cascade", "learning")}
        levels = self.levels()
        return {"quantizer levels": levels} | (signed if levels else dict.fromkeys(signed))

    def levels(self) -> dict[Entity, tuple[int, ...]]:
        """Return the levels of every entity that is quantized."""
        levels: dict[Entity, tuple[int, ...] | None] = {"user": self.user_levels, "item": self.item_levels}
        return {entity: sizes for entity, sizes in levels.items() if sizes is not None}
