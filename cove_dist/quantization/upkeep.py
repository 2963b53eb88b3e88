"""What codebooks need between optimizer steps: moving averages, a k-means start, the revival of dead codes.

Shapes: ``v_i`` codes at level i, ``d`` components.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from cove_dist.quantization.kmeans import kmeans, mass_of_centres
from cove_dist.quantization.moments import reset_moments
from cove_dist.quantization.observation import Observation, distinct_vectors
from cove_dist.quantization.precision import at_least_float32
from cove_dist.quantization.quantizer import CascadedQuantizer
from cove_dist.quantization.replicas import ALONE, Replicas, generator
from cove_dist.quantization.sampling import draw_vectors
from cove_dist.quantization.search import nearest_code, nearest_with_distance
from cove_dist.quantization.usage import CodeUsage

Start = Literal["random", "kmeans"]
RowState = Callable[[torch.Tensor], Mapping[str, Any]]


@dataclass(frozen=True)
class UpkeepSettings:
    """When to do what.

    Attributes:
        start: where codebooks start: "random", or "kmeans": random until `kmeans_step`, then the centres of the vectors
            of the `kmeans_batches` steps up to it. Embeddings that start at random have no clusters at step 1.
        revive_every: steps after which codes that none of them chose are placed anew, on vectors of the latest step;
            None: never.
        seed: of the draws.

    Raises:
        ValueError: a setting is out of its range.
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
        """Whether the k-means start takes in the vectors of a step."""
        return self.start == "kmeans" and self.kmeans_step - self.kmeans_batches < step <= self.kmeans_step

    def revives(self, step: int) -> bool:
        """Whether dead codes are placed anew after a step."""
        return self.revive_every is not None and step % self.revive_every == 0


AVERAGES_ALONE = UpkeepSettings()


class CodebookMaintenance:
    """Keeps the codebooks of some quantizers; call `after_step` after every optimizer step, on every replica.

    What it changes is the same on every replica, to the bit. Under `DistributedDataParallel` give that
    ``broadcast_buffers=False``: a quantizer counts in buffers what its own replica has seen.

    A quantizer in evaluation mode is left as it is: nothing is averaged, started or revived, and what it has gathered
    waits for the next call in training mode. Codebooks that are frozen (`CascadedQuantizer.freeze`) stay as they are,
    and k-means of the next level starts from them. Mode and freezing must be the same on every replica.

    Args:
        quantizers: by name.
        settings: when to do what.
        replicas: that hold the same quantizers.
        optimizer_state: the optimizer's state of a parameter, such as ``optimizer.state.__getitem__``, to reset in
            the rows that are placed anew (see `reset_moments`). Needed by codebooks that learn by gradient.
    """

    def __init__(
        self,
        quantizers: Mapping[str, CascadedQuantizer],
        settings: UpkeepSettings = AVERAGES_ALONE,
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
            quantizer.keep_observation = settings.start == "kmeans" or settings.revive_every is not None

    @torch.no_grad()
    def after_step(self, step: int) -> dict[str, int]:
        """Do what is due after optimizer step ``step``, from 1. Collective where something is due.

        Returns:
            How many codes were revived, by ``<name>_<level>``, after a step that revives.

        Raises:
            RuntimeError: vectors of this step are needed, and a quantizer had no training pass since the last call.
        """
        settings, revived = self._settings, {}
        training = {name: quantizer for name, quantizer in self._quantizers.items() if quantizer.training}
        self._average(training.values())
        if settings.collects(step):
            for name in training:
                self._collected[name].append(self._observed(name, step))
        if settings.start == "kmeans" and step == settings.kmeans_step:
            self._start_by_kmeans(training)
        elif settings.revives(step) and training:
            revived = self._revive(step, training)
        for quantizer in training.values():
            quantizer.observation = None
        for quantizer in self._quantizers.values():
            quantizer.keep_observation = settings.collects(step + 1) or settings.revives(step + 1)
        return revived

    def state_dict(self) -> dict[str, Any]:
        """What this replica has gathered for later steps."""
        return {
            "usage": self._usage.counts(),
            "collected": {n: [tuple(o) for o in c] for n, c in self._collected.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._usage.set_counts(state["usage"])
        self._collected = {name: [Observation(*o) for o in kept] for name, kept in state["collected"].items()}

    def _average(self, training: Iterable[CascadedQuantizer]) -> None:
        """All quantizers' statistics of the step as one flat buffer."""
        averaged = [(q.moving_averages, list(q.codebooks)) for q in training if q.moving_averages is not None]
        if not averaged:
            return
        own = [averages.take_statistics(codebooks) for averages, codebooks in averaged]
        flat = torch.cat(own)
        self._replicas.add_up(flat)
        for (averages, codebooks), statistics in zip(averaged, flat.split([len(s) for s in own]), strict=True):
            averages.update(codebooks, statistics)

    def _observed(self, name: str, step: int) -> Observation:
        observation = self._quantizers[name].observation
        if observation is None:
            raise RuntimeError(
                f"after_step({step}): quantizer {name!r} had no training pass since the last call."
                " Call after_step after every optimizer step, with steps that follow one another"
            )
        return observation

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
                    vectors = left_over(inputs[0], quantizer.codebooks[level])
        self._usage.restart(training.values())

    def _start_level(
        self,
        quantizer: CascadedQuantizer,
        level: int,
        vectors: torch.Tensor,
        weights: torch.Tensor,
        random: torch.Generator,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Place the centres of a level's inputs, if it is not frozen, and return its codes with their weights."""
        if quantizer.frozen[level]:
            codebook = quantizer.codebooks[level].to(vectors.dtype)
            return codebook, mass_of_centres(vectors, weights, codebook, self._replicas)
        centres, mass = kmeans(vectors, weights, quantizer.levels[level], self._replicas, random)
        self._place(quantizer, level, torch.arange(len(centres), device=centres.device), centres)
        return centres, mass

    def _revive(self, step: int, training: Mapping[str, CascadedQuantizer]) -> dict[str, int]:
        counts = self._usage.counts()
        self._replicas.add_up(counts)
        self._usage.restart(training.values())
        revived = {}
        for number, (name, usage) in enumerate(zip(self._quantizers, self._usage.by_level(counts), strict=True)):
            if name not in training:
                continue
            quantizer = training[name]
            vectors, weights = distinct_vectors([self._observed(name, step)])
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
        """Place dead codes on inputs of the level, by odds of their weight times squared distance from their code."""
        if len(dead) == 0 or quantizer.frozen[level]:
            return 0
        codebook = quantizer.codebooks[level]
        _, distances = nearest_with_distance(inputs, codebook.to(inputs.dtype))
        drawn = draw_vectors(inputs, weights * distances, len(dead), self._replicas, random).to(codebook.dtype)
        drawn = torch.unique(drawn, dim=0)  # several replicas may have offered the vector of one id
        self._place(quantizer, level, dead[: len(drawn)], drawn)
        return len(drawn)

    def _place(self, quantizer: CascadedQuantizer, level: int, rows: torch.Tensor, vectors: torch.Tensor) -> None:
        """Put code vectors into rows of a level, and forget what optimizer and averages knew of these rows."""
        codebook = quantizer.codebooks[level]
        codebook[rows] = vectors.to(codebook.dtype)
        if quantizer.moving_averages is not None:
            quantizer.moving_averages.restart(level, rows)
        reset_moments(self._optimizer_state(codebook), codebook.shape, rows)

    def _offered(self, quantizer: CascadedQuantizer, weights: torch.Tensor, level: int) -> torch.Tensor:
        """Return the weights of a level's inputs on this replica.

        Where the inputs are code vectors, all replicas have the same, and rank 0 offers them: what each computed by
        itself might differ in the last bit.
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
        quantizer: Whose levels these are.
        vectors, weights: Inputs of level 1.
        usage: How often each code was chosen, ``[v_i]`` a level.
    """
    if quantizer.settings.cascade == "codes":
        return [(vectors, weights), *zip(list(quantizer.codebooks)[:-1], usage[:-1], strict=True)]
    inputs = [(vectors, weights)]
    for codebook in list(quantizer.codebooks)[:-1]:
        vectors = left_over(vectors, codebook)
        inputs.append((vectors, weights))
    return inputs


def left_over(vectors: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """Return ``vectors [n, d]`` less the nearest rows of a codebook: what the next level of a residual cascade gets."""
    codebook = codebook.to(vectors.dtype)
    return vectors - codebook.index_select(0, nearest_code(vectors, codebook))


def _precise(vectors: torch.Tensor, weights: torch.Tensor, codebook: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs of a level and their weights in the type of its codebook, in float32 where that is less precise."""
    dtype = at_least_float32(codebook.dtype)
    return vectors.to(dtype), weights.to(dtype)
