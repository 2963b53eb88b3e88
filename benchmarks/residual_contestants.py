"""The contestants of `benchmarks/residual_codes.py`: each turns vectors into codes, and codes back into vectors.

Shapes: ``n`` vectors, ``d`` components, ``H`` levels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import faiss
import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import nn
from torch.nn import functional

from cove_dist.quantization import CascadedQuantizer, CodebookMaintenance, MaintenanceSettings, Replicas
from cove_dist.quantization.replicas import ALONE

BATCH = 1024
COMMITMENT = 0.25  # weight of RQ-VAE's commitment term


class Coded(NamedTuple):
    """Vectors as codes.

    Attributes:
        codes: int64 ``[n, H]``.
        decoded: float32 ``[n, d]``, a function of the codes.
    """

    codes: np.ndarray
    decoded: np.ndarray


class Request(NamedTuple):
    """What a contestant is asked for.

    Attributes:
        vectors: float32 ``[n, d]``.
        levels: Number of codes of every level, powers of two.
        seed: Seed of all random choices.
        epochs: Passes over the vectors, for contestants that learn by batches.
    """

    vectors: torch.Tensor
    levels: tuple[int, ...]
    seed: int
    epochs: int

    def batches(self) -> Iterator[torch.Tensor]:
        """Yield the positions of every batch, in another order every epoch."""
        random = torch.Generator().manual_seed(self.seed)
        for _ in range(self.epochs):
            yield from torch.randperm(len(self.vectors), generator=random).split(BATCH)

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return -(-len(self.vectors) // BATCH)


def ours(
    request: Request,
    learning: str = "ema",
    start: str = "kmeans",
    replicas: Replicas = ALONE,
    precision: torch.dtype = torch.float32,
) -> Coded:
    """Train `CascadedQuantizer` with ``cascade="residual"``, each replica on its part of every batch.

    The k-means start is that of all vectors, after the first epoch. Until three quarters of the steps, codes that no
    vector of an epoch chose are revived. By gradient, Adam's rate falls linearly to 0 from 3 % of the vectors' standard
    deviation.
    """
    torch.manual_seed(request.seed)
    vectors, scale = request.vectors.to(precision), float(request.vectors.std())
    quantizer = CascadedQuantizer(
        vectors.shape[1],
        request.levels,
        0.0,
        cascade="residual",
        learning=learning,
        loss_reduction="sum",
        init_std=scale,
    ).to(precision)
    optimizer = None
    if learning == "gradient":
        optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.03 * scale)
        rate = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, request.steps * request.epochs)
    state = {} if optimizer is None else optimizer.state
    early = MaintenanceSettings(start, request.steps, request.steps, revive_every=request.steps, seed=request.seed)
    settled, reviving = (
        CodebookMaintenance({"item": quantizer}, settings, replicas, lambda p: state.get(p, {}))
        for settings in (MaintenanceSettings(), early)
    )  # the last one says which vectors are kept
    for step, batch in enumerate(request.batches(), start=1):
        own = batch.tensor_split(replicas.world_size)[replicas.rank]
        loss = quantizer(vectors[own], ids=own).loss * (len(own) / len(batch))
        if optimizer is not None:
            optimizer.zero_grad()
            loss.backward()
            for codebook in quantizer.codebooks:
                replicas.all_reduce(codebook.grad)
            optimizer.step()
            rate.step()
        (reviving if step <= 0.75 * request.steps * request.epochs else settled).after_step(step)
    codes = quantizer.eval()(vectors).codes.numpy()
    return Coded(codes, _sums(codes, [codebook.detach().numpy() for codebook in quantizer.codebooks]))


def kmeans(request: Request) -> Coded:
    """Run k-means (scikit-learn) on the vectors, and level by level on what the levels before leave."""
    left, codes, centres = request.vectors.numpy(), [], []
    for size in request.levels:
        fitted = KMeans(size, n_init=1, random_state=request.seed).fit(left)
        codes.append(fitted.labels_.astype(np.int64))
        centres.append(fitted.cluster_centers_)
        left = left - centres[-1][codes[-1]]
    return Coded(np.stack(codes, axis=1), _sums(np.stack(codes, axis=1), centres))


def faiss_residual(request: Request, beam: int | None = None) -> Coded:
    """Train FAISS's ResidualQuantizer, with its default beam (5) and training, or with another beam."""
    order = np.random.default_rng(request.seed).permutation(len(request.vectors))
    bits = [size.bit_length() - 1 for size in request.levels]
    sizes = faiss.UInt64Vector()
    for each in bits:
        sizes.push_back(each)
    quantizer = faiss.ResidualQuantizer(request.vectors.shape[1], sizes)
    quantizer.cp.seed = request.seed + 1
    if beam is not None:
        quantizer.max_beam_size = beam
    vectors = request.vectors.numpy()
    quantizer.train(vectors[order])
    packed = quantizer.compute_codes(vectors)
    return Coded(faiss.unpack_bitstrings(packed, bits).astype(np.int64), quantizer.decode(packed))


class RQVAE(nn.Module):
    """The residual-quantized autoencoder of Rajput et al., "Recommender Systems with Generative Retrieval" (2023).

    As in section 3.1: an encoder and a decoder with ReLU layers; codes of the latent vector, every level of what the
    levels before leave; a straight-through estimator; and the loss
    ``|x - decoded|^2 + sum_i |sg(r_i) - e_i|^2 + 0.25 |r_i - sg(e_i)|^2``. Codebooks start by k-means of the latent
    vectors of the first batch.
    """

    def __init__(self, dim: int, levels: Sequence[int], hidden: Sequence[int] = (128, 64), latent: int = 32) -> None:
        super().__init__()
        sizes = [dim, *hidden, latent]
        self.encoder, self.decoder = _layers(sizes), _layers(sizes[::-1])
        self.codebooks = nn.ParameterList(torch.zeros(size, latent) for size in levels)

    @torch.no_grad()
    def start(self, vectors: torch.Tensor, seed: int) -> None:
        left = self.encoder(vectors)
        for codebook in self.codebooks:
            fitted = KMeans(len(codebook), n_init=1, random_state=seed).fit(left.numpy())
            codebook.copy_(torch.from_numpy(fitted.cluster_centers_))
            left = left - codebook[torch.from_numpy(fitted.labels_).long()]

    def forward(self, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the codes ``[n, H]``, the decoded vectors ``[n, d]`` and the loss."""
        latent = self.encoder(vectors)
        left, loss, codes = latent, latent.new_zeros(()), []
        for codebook in self.codebooks:
            codes.append(torch.cdist(left.detach(), codebook.detach()).argmin(dim=1))
            chosen = functional.embedding(codes[-1], codebook)
            loss = loss + (left.detach() - chosen).square().sum(dim=1).mean()
            loss = loss + COMMITMENT * (left - chosen.detach()).square().sum(dim=1).mean()
            left = left - chosen.detach()
        decoded = self.decoder(latent - left.detach())  # the sum of the codes, with the latent vector's gradient
        return torch.stack(codes, dim=1), decoded, loss + (vectors - decoded).square().sum(dim=1).mean()


def rqvae(request: Request, rate: float = 1e-3) -> Coded:
    """Train `RQVAE` for five times as many epochs, by Adam with a rate that falls linearly to 0.

    Vectors have mean 0 and standard deviation 1.
    """
    torch.manual_seed(request.seed)
    request = request._replace(epochs=5 * request.epochs)
    mean, scale = request.vectors.mean(dim=0), request.vectors.std()
    vectors = (request.vectors - mean) / scale
    model = RQVAE(vectors.shape[1], request.levels)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, request.steps * request.epochs)
    for step, batch in enumerate(request.batches()):
        if step == 0:
            model.start(vectors[batch], request.seed)
        optimizer.zero_grad()
        model(vectors[batch])[2].backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        codes, decoded, _ = model(vectors)
    return Coded(codes.numpy(), (decoded * scale + mean).numpy())


def _layers(sizes: Sequence[int]) -> nn.Sequential:
    """Return linear layers with ReLU between them."""
    layers = [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def _sums(codes: np.ndarray, codebooks: Sequence[np.ndarray]) -> np.ndarray:
    """Return the sum of the code vectors of every row of codes."""
    return np.sum([codebook[codes[:, level]] for level, codebook in enumerate(codebooks)], axis=0)


CONTESTANTS: dict[str, Callable[[Request], Coded]] = {
    "ours, ema": ours,
    "ours, gradient": partial(ours, learning="gradient"),
    "k-means": kmeans,
    "FAISS, beam 1": partial(faiss_residual, beam=1),
    "FAISS": faiss_residual,
    "RQ-VAE": rqvae,
}
