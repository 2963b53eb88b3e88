"""A plain torch loop over a quantizer, as a user without TorchRec has it."""

from __future__ import annotations

import torch
from torch import nn

from cove_dist.quantization import CascadedQuantizer, CodebookMaintenance, MaintenanceSettings, Replicas
from cove_dist.quantization.assignment import Cascade

DIM = 6


class Loop:
    """60 ids in a table, a quantizer of 20 and 4 codes, an optimizer, maintenance after every step.

    Args:
        settings: of the maintenance.
        learning: of the codebooks.
        replicas: of which each takes its share of every batch.
    """

    def __init__(
        self,
        settings: MaintenanceSettings,
        learning: str = "gradient",
        replicas: Replicas | None = None,
        optimizer: type[torch.optim.Optimizer] = torch.optim.Adam,
        scale: float = 1.0,
        cascade: Cascade = "codes",
    ) -> None:
        random = torch.Generator().manual_seed(0)
        self.table = nn.Embedding.from_pretrained(torch.randn(60, DIM, generator=random), freeze=False)
        self.quantizer = CascadedQuantizer(DIM, (20, 4), learning=learning, cascade=cascade)
        with torch.no_grad():
            for codebook in self.quantizer.codebooks:
                codebook.copy_(torch.randn(codebook.shape, generator=random) * scale)
        self.replicas = replicas or Replicas(0, 1, lambda tensor: tensor)
        learned = [p for p in (*self.table.parameters(), *self.quantizer.parameters()) if p.requires_grad]
        self.optimizer = optimizer(learned, lr=0.01)
        self.maintenance = CodebookMaintenance(
            {"item": self.quantizer}, settings, self.replicas, lambda p: self.optimizer.state.get(p, {})
        )
        self.batches = torch.randint(0, 60, (100, 24), generator=random)

    def step(self, step: int) -> dict[str, int]:
        """Train on the step's batch; gradients are averaged over replicas."""
        ids = self.batches[step].tensor_split(self.replicas.world_size)[self.replicas.rank]
        self.optimizer.zero_grad()
        out = self.quantizer(self.table(ids), ids=ids)
        (out.fused.square().mean() + out.loss).backward()
        for group in self.optimizer.param_groups:
            for parameter in (p for p in group["params"] if p.requires_grad):  # some may be frozen by now
                self.replicas.all_reduce(parameter.grad)
                parameter.grad /= self.replicas.world_size
        self.optimizer.step()
        return self.maintenance.after_step(step)

    def codebooks(self) -> list[torch.Tensor]:
        return [codebook.detach().clone() for codebook in self.quantizer.codebooks]

    def used(self, steps: range) -> list[set[int]]:
        """The codes of each level that batches of some steps choose now."""
        with torch.no_grad():
            codes = self.quantizer.eval()(self.table(self.batches[steps.start : steps.stop])).codes
        self.quantizer.train()
        return [set(codes[..., level].flatten().tolist()) for level in range(2)]


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(map(torch.equal, left, right))


def is_row_of(rows: torch.Tensor, table: torch.Tensor) -> bool:
    return bool((rows.unsqueeze(1) == table).all(dim=2).any(dim=1).all())
