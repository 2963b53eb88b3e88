"""Maintenance of codebooks between optimizer steps: moving averages, k-means start, revival of dead codes.

Shapes: ``v_i`` codes at level i, ``d`` components.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from cove_dist.quantization.kmeans import best_kmeans, weights_of_centres
from cove_dist.quantization.moments import reset_moments
from cove_dist.quantization.observation import Observation, add_observation, distinct_vectors, oldest_first
from cove_dist.quantization.precision import at_least_float32
from cove_dist.quantization.quantizer import CascadedQuantizer
from cove_dist.quantization.replicas import ALONE, Replicas, generator
from cove_dist.quantization.sampling import draw_vectors
from cove_dist.quantization.search import nearest_code, nearest_with_distance
from cove_dist.quantization.usage import CodeUsage

Start = Literal["random", "kmeans"]
RowState = Callable[[torch.Tensor], Mapping[str, Any]]


@dataclass(frozen=True)
class MaintenanceSettings:
    """Schedule of codebook maintenance.

    Attributes:
        start: Initialization of codebooks: "random", or "kmeans": random until `kmeans_step`, then the centres of the
            vectors of the `kmeans_batches` steps up to it. Random embeddings have no clusters at step 1.
        revive_every: Number of steps after which codes unused in all of them are re-initialized to recent vectors;
            None: never.
        seed: Seed of random draws.

    Raises:
        ValueError: A setting is out of range.
    """

    start: Start = "random"
    kmeans_step: int = 50
    kmeans_batches: int = 10
    revive_every: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.start not in get_args(Start):
            raise ValueError(f"start = {self.start!r}: allowed: {', '.join(map(repr, get_args(Start)))}")
        for name in ("kmeans_step", "kmeans_batches", "revive_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} = {value}: must be at least 1")

    def collects(self, step: int) -> bool:
        """Return whether the k-means start uses the vectors of a step."""
        return self.start == "kmeans" and self.kmeans_step - self.kmeans_batches < step <= self.kmeans_step

    def revives(self, step: int) -> bool:
        """Return whether dead codes are re-initialized after a step.

        After a start by k-means a whole interval must pass first: uses are counted from the start on.
        """
        if self.revive_every is None or step % self.revive_every != 0:
            return False
        return self.start == "random" or not 0 <= step - self.kmeans_step < self.revive_every


class CodebookMaintenance:
    """Maintains the codebooks of quantizers; call `after_step` after every optimizer step, on every replica.

    A step may have several training passes, as with gradient accumulation. Their vectors are kept until `after_step`,
    in the steps whose vectors are used.

    Its changes are bit-identical on every replica. Construct `DistributedDataParallel` with
    ``broadcast_buffers=False``: a quantizer's buffers count the vectors of its replica.

    A quantizer in evaluation mode is unchanged: nothing is averaged, started or revived, and its collected statistics
    are used at the next call in training mode. Frozen codebooks (`CascadedQuantizer.freeze`) are unchanged, and k-means
    of the next level starts from them. Mode and freezing must be the same on every replica.

    Args:
        quantizers: Quantizers by name.
        settings: Schedule of the maintenance.
        replicas: Replicas that hold the same quantizers.
        optimizer_state: Function from a parameter to its optimizer state, such as ``optimizer.state.__getitem__``, to
            reset re-initialized rows (see `reset_moments`). Required if codebooks learn by gradient.
    """

    def __init__(
        self,
        quantizers: Mapping[str, CascadedQuantizer],
        settings: MaintenanceSettings = MaintenanceSettings(),
        replicas: Replicas = ALONE,
        optimizer_state: RowState = lambda parameter: {},
    ) -> None:
        self._quantizers = dict(quantizers)
        self._settings = settings
        self._replicas = replicas
        self._optimizer_state = optimizer_state
        self._usage = CodeUsage(self._quantizers.values())
        self._collected: dict[str, list[Observation]] = {name: [] for name in self._quantizers}
        for quantizer in self._quantizers.values():
            quantizer.keep_observations = settings.start == "kmeans" or settings.revive_every is not None

    @torch.no_grad()
    def after_step(self, step: int) -> dict[str, int]:
        """Run the maintenance due after optimizer step ``step``, from 1. Collective if anything is due.

        Returns:
            Number of revived codes by ``<name>_<level>``, after a step that revives.

        Raises:
            RuntimeError: Vectors of this step are required and a quantizer had no training pass since the last call.
        """
        settings, revived = self._settings, {}
        training = {name: quantizer for name, quantizer in self._quantizers.items() if quantizer.training}
        self._average(training.values())
        if settings.collects(step):
            for name in training:
                for seen in self._observed(name, step):
                    add_observation(self._collected[name], seen)
        if settings.start == "kmeans" and step == settings.kmeans_step:
            self._start_by_kmeans(training)
        if settings.revives(step) and training:
            revived = self._revive(step, training)
        for quantizer in training.values():
            quantizer.observations = []
        for quantizer in self._quantizers.values():
            quantizer.keep_observations = settings.collects(step + 1) or settings.revives(step + 1)
        return revived

    def state_dict(self) -> dict[str, Any]:
        """Return the state that this replica has collected for later steps."""
        return {
            "usage": self._usage.counts(),
            "collected": {n: [tuple(o) for o in c] for n, c in self._collected.items()},
        }

    def load_state_dict(self, *states: Mapping[str, Any]) -> None:
        """Restore the states of any number of former replicas.

        On another number of replicas, each former state must be restored on exactly one; others may have none.
        """
        device = self._usage.counts().device
        self._usage.set_counts(*(state["usage"] for state in states))
        self._collected = {
            name: oldest_first(
                [[Observation(*o).to(device) for o in state["collected"].get(name, [])] for state in states]
            )
            for name in self._quantizers
        }

    def _average(self, training: Iterable[CascadedQuantizer]) -> None:
        """Update all moving averages with one all-reduce of the step's statistics."""
        averaged = [(q.moving_averages, list(q.codebooks)) for q in training if q.moving_averages is not None]
        if not averaged:
            return
        own = [averages.take_statistics(codebooks) for averages, codebooks in averaged]
        flat = torch.cat(own)
        self._replicas.all_reduce(flat)
        for (averages, codebooks), statistics in zip(averaged, flat.split([len(s) for s in own]), strict=True):
            averages.update(codebooks, statistics)

    def _observed(self, name: str, step: int) -> list[Observation]:
        """Return the inputs of a quantizer in this step, which has several passes with gradient accumulation."""
        observations = self._quantizers[name].observations
        if not observations:
            raise RuntimeError(
                f"after_step({step}): quantizer {name!r} had no training pass since the last call."
                " Call after_step after every optimizer step, with consecutive steps"
            )
        return observations

    def _start_by_kmeans(self, training: Mapping[str, CascadedQuantizer]) -> None:
        for number, name in enumerate(self._quantizers):
            if name not in training:
                continue
            quantizer = training[name]
            vectors, weights = distinct_vectors(self._collected.pop(name))
            for level in range(len(quantizer.levels)):
                inputs = _precise(vectors, self._offered(quantizer, weights, level), quantizer.codebooks[level])
                random = self._random(vectors.device, self._settings.kmeans_step, number, level)
                centres = self._start_level(quantizer, level, *inputs, random)
                if quantizer.settings.cascade == "codes":
                    vectors, weights = centres
                else:
                    vectors = residual_of(inputs[0], quantizer.codebooks[level])
        self._usage.reset(training.values())

    def _start_level(
        self,
        quantizer: CascadedQuantizer,
        level: int,
        vectors: torch.Tensor,
        weights: torch.Tensor,
        random: torch.Generator,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Set a level to the centres of its inputs, unless it is frozen; return its codes with their weights."""
        if quantizer.frozen[level]:
            codebook = quantizer.codebooks[level].to(vectors.dtype)
            return codebook, weights_of_centres(vectors, weights, codebook, self._replicas)
        centres, centre_weights = best_kmeans(vectors, weights, quantizer.levels[level], self._replicas, random)
        self._place(quantizer, level, torch.arange(len(centres), device=centres.device), centres)
        return centres, centre_weights

    def _revive(self, step: int, training: Mapping[str, CascadedQuantizer]) -> dict[str, int]:
        counts = self._usage.counts()
        self._replicas.all_reduce(counts)
        self._usage.reset(training.values())
        revived = {}
        for number, (name, usage) in enumerate(zip(self._quantizers, self._usage.by_level(counts), strict=True)):
            if name not in training:
                continue
            quantizer = training[name]
            vectors, weights = distinct_vectors(self._observed(name, step))
            inputs = level_inputs(quantizer, vectors, weights, usage)
            for level, (vectors, weights) in enumerate(inputs):
                random = self._random(counts.device, step, number, level)
                dead = (usage[level] == 0).nonzero().flatten()
                offered = _precise(vectors, self._offered(quantizer, weights, level), quantizer.codebooks[level])
                revived[f"{name}_{level + 1}"] = self._revive_level(quantizer, level, dead, *offered, random)
        return revived

    def _revive_level(
        self,
        quantizer: CascadedQuantizer,
        level: int,
        dead: torch.Tensor,
        inputs: torch.Tensor,
        weights: torch.Tensor,
        random: torch.Generator,
    ) -> int:
        """Move dead codes to inputs of the level, sampled by weight times squared distance from their code."""
        if len(dead) == 0 or quantizer.frozen[level]:
            return 0
        codebook = quantizer.codebooks[level]
        _, distances = nearest_with_distance(inputs, codebook.to(inputs.dtype))
        drawn = draw_vectors(inputs, weights * distances, len(dead), self._replicas, random).to(codebook.dtype)
        drawn = torch.unique(drawn, dim=0)  # several replicas may offer the vector of one id
        self._place(quantizer, level, dead[: len(drawn)], drawn)
        return len(drawn)

    def _place(self, quantizer: CascadedQuantizer, level: int, rows: torch.Tensor, vectors: torch.Tensor) -> None:
        """Overwrite rows of a level, and reset their optimizer state and averages."""
        codebook = quantizer.codebooks[level]
        codebook[rows] = vectors.to(codebook.dtype)
        if quantizer.moving_averages is not None:
            quantizer.moving_averages.reset(level, rows)
        reset_moments(self._optimizer_state(codebook), codebook.shape, rows)

    def _offered(self, quantizer: CascadedQuantizer, weights: torch.Tensor, level: int) -> torch.Tensor:
        """Return the weights of a level's inputs on this replica.

        If the inputs are code vectors, all replicas have the same ones and only rank 0 offers them, as the replicas'
        results might differ in the last bit.
        """
        own = level == 0 or quantizer.settings.cascade == "residual"
        return weights if own or self._replicas.rank == 0 else torch.zeros_like(weights)

    def _random(self, device: torch.device, *key: int) -> torch.Generator:
        return generator(device, self._settings.seed, *key, self._replicas.rank)


def level_inputs(
    quantizer: CascadedQuantizer, vectors: torch.Tensor, weights: torch.Tensor, usage: Sequence[torch.Tensor]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return what each level quantizes, with its weights, from the inputs ``[n, d]`` and ``[n]`` of level 1.

    Args:
        quantizer: Quantizer of the levels.
        vectors, weights: Inputs of level 1.
        usage: Number of times each code was chosen, ``[v_i]`` per level.
    """
    if quantizer.settings.cascade == "codes":
        return [(vectors, weights), *zip(list(quantizer.codebooks)[:-1], usage[:-1], strict=True)]
    inputs = [(vectors, weights)]
    for codebook in list(quantizer.codebooks)[:-1]:
        vectors = residual_of(vectors, codebook)
        inputs.append((vectors, weights))
    return inputs


def residual_of(vectors: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """Return ``vectors [n, d]`` minus the nearest codebook rows: the inputs of the next level of a residual cascade."""
    codebook = codebook.to(vectors.dtype)
    return vectors - codebook.index_select(0, nearest_code(vectors, codebook))


def _precise(vectors: torch.Tensor, weights: torch.Tensor, codebook: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs of a level and their weights in the type of its codebook, but at least float32."""
    dtype = at_least_float32(codebook.dtype)
    return vectors.to(dtype), weights.to(dtype)
