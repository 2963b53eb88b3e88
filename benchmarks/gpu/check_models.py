"""Loss and gradients of one batch of every model, with COVE, on the device against the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest import mock

import torch
from check_quantizer import relative_error
from clock import Bench, matmul_precision
from inputs import MODELS, overrides, without_dropout
from runs import batches_in_memory, build_trainer

from cove_dist.training.optimization import data_parallel_parameters
from cove_dist.training.trainer import Trainer
from data_pipeline.batch import Batch
from results import Row

TOLERANCE = 1e-4  # of the loss, and of ||found - expected|| / ||expected|| of a gradient
NEGLIGIBLE = 1e-4  # a gradient below this share of the largest norm is compared with that share: it is rounding


def cases(bench: Bench) -> Iterator[tuple[str, Callable[[], Row]]]:
    for kind, models in MODELS.items():
        for model in models:
            yield model, partial(compare, bench, kind, model)


def compare(bench: Bench, kind: str, model: str) -> Row:
    """Compare a step's losses and the gradients of all parameters, tables included."""
    size = "1024" if not bench.tiny else "32"
    words = [*overrides(kind, model, bench.work, bench.tiny), *without_dropout(model), f"trainer.batch_size={size}"]
    words += ["embeddings.sharding.default=data_parallel"]  # a fused optimizer leaves no gradients
    here, there = build_trainer(words, bench, "cpu"), build_trainer(words, bench)
    [batch] = batches_in_memory(here, 1)
    with matmul_precision("float32"):  # cuDNN's layers use TF32 otherwise
        expected, found = loss_and_gradients(here, batch), loss_and_gradients(there, batch)
    losses = [abs(found[0][name] - value) / max(abs(value), 1e-6) for name, value in expected[0].items()]
    if expected[1].keys() != found[1].keys():
        raise AssertionError(f"gradients of {sorted(expected[1].keys() ^ found[1].keys())} on one device only")
    largest = max(gradient.norm() for gradient in expected[1].values())
    errors = {}
    for name, gradient in expected[1].items():
        scale = gradient.double().norm() / torch.maximum(gradient.norm(), NEGLIGIBLE * largest).double()
        errors[name] = relative_error(found[1][name], gradient) * float(scale) if float(scale) else 0.0
    worst = max(errors, key=errors.__getitem__)
    good = max(losses) <= TOLERANCE and errors[worst] <= TOLERANCE
    return {"ok": good, "loss": max(losses), "gradient": errors[worst], "of": worst, "gradients": len(errors)}


def loss_and_gradients(trainer: Trainer, batch: Batch) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Compute them in training mode, with random numbers drawn on the CPU, so that devices draw the same."""
    model, device = trainer.train_state.model, trainer.context.device
    torch.manual_seed(0)
    with mock.patch.object(torch, "rand", partial(drawn_on_cpu, torch.rand)):
        loss, output = model(batch.to(device))
    loss.backward()
    gradients = {
        name: parameter.grad.detach().cpu().clone()
        for name, parameter in data_parallel_parameters(model).items()
        if parameter.grad is not None
    }
    return {name: float(value) for name, value in output.losses.items()}, gradients


def drawn_on_cpu(draw: Callable[..., torch.Tensor], *size: Any, device: torch.device | str | None = None, **named: Any):
    return draw(*size, device="cpu", **named).to(device or "cpu")
