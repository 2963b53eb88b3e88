"""The CTR models of FuxiCTR 2.3.10, composed of the layers in its wheel, with a record of every fit.

The wheel has the layers and `BaseModel`, but not the model zoo. What is ours is how the layers are put together, after
the published classes, and for FinalMLP its gates and its fusion, which the zoo keeps outside the class.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import (
    BilinearInteractionV2,
    CrossNet,
    FactorizationMachine,
    FeatureEmbedding,
    LogisticRegression,
    MLP_Block,
    SqueezeExcitation,
)
from fuxictr.pytorch.models import BaseModel
from torch import nn

Inputs = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Settings:
    """The paper's setting for CTR; from ``num_heads`` on ours. FuxiCTR's own: no regularizer, decay, patience 2."""

    embedding_dim: int = 64
    hidden_units: tuple[int, ...] = (1000, 1000, 1000)
    dropout: float = 0.1
    learning_rate: float = 1e-3
    batch_size: int = 5000
    cross_layers: int = 3  # of DCN
    reduction_ratio: int = 3  # of FiBiNET's SENET
    num_heads: int = 10  # of FinalMLP
    gate_units: tuple[int, ...] = (64,)  # of FinalMLP
    embedding_regularizer: float = 0.0  # lambda of (lambda / 2) * ||table||^2, over the whole tables, every step
    reduce_lr_on_plateau: bool = False  # else the learning rate * 0.1 after every epoch without a better validation AUC
    torch_init: bool = False  # FuxiCTR's own: Xavier normal weights, zero biases
    bfloat16: bool = False  # autocast of all that follows the embeddings
    patience: int = 3
    max_epochs: int = 100


class RecordedModel(BaseModel):
    """Embeddings, what a subclass builds on them, and FuxiCTR's training.

    Attributes (lists of float):
        validation_auc, validation_seconds: one value per epoch; the seconds include the checkpoint, if any.
        step_seconds: ``train_step`` on each full batch: forward, backward, clipping, Adam.
        epoch_seconds: each epoch, data loader included, validation left out.
    """

    def __init__(self, feature_map: FeatureMap, settings: Settings, checkpoints: Path) -> None:
        super().__init__(
            feature_map,
            early_stop_patience=settings.patience,
            embedding_regularizer=settings.embedding_regularizer,
            reduce_lr_on_plateau=settings.reduce_lr_on_plateau,
            verbose=0,
            model_root=str(checkpoints),
            metrics=["AUC"],
        )
        Path(self.model_dir).mkdir(parents=True, exist_ok=True)
        self.embedding_layer = FeatureEmbedding(feature_map, settings.embedding_dim)
        self.build(feature_map, settings, feature_map.num_fields * settings.embedding_dim)
        self.compile("adam", "binary_crossentropy", settings.learning_rate)
        torch_start = {m: copy.deepcopy(m.state_dict()) for m in self.modules() if isinstance(m, nn.Linear)}
        self.reset_parameters()
        if settings.torch_init:
            for layer, start in torch_start.items():
                layer.load_state_dict(start)
        self.batch_size, self.bfloat16 = settings.batch_size, settings.bfloat16
        self.validation_auc, self.validation_seconds, self.step_seconds, self.epoch_seconds = [], [], [], []

    def build(self, feature_map: FeatureMap, settings: Settings, width: int) -> None:
        """Create the layers after the embeddings, whose concatenation has ``width`` columns."""
        raise NotImplementedError

    def logits(self, inputs: Inputs, embeddings: torch.Tensor) -> torch.Tensor:
        """Map ``embeddings [B, fields, d]`` to logits ``[B, 1]``."""
        raise NotImplementedError

    def forward(self, inputs: Inputs) -> Inputs:
        fields = self.get_inputs(inputs)
        embeddings = self.embedding_layer(fields)
        with torch.autocast(embeddings.device.type, torch.bfloat16, enabled=self.bfloat16):
            logits = self.logits(fields, embeddings)
        return {"y_pred": self.output_activation(logits.float())}

    def train_step(self, batch_data: Inputs) -> torch.Tensor:
        start = time.perf_counter()
        loss = super().train_step(batch_data)
        if len(self.get_labels(batch_data)) == self.batch_size:
            self.step_seconds.append(time.perf_counter() - start)
        return loss

    def train_epoch(self, data_generator: torch.utils.data.DataLoader) -> None:
        start = time.perf_counter()
        super().train_epoch(data_generator)
        self.epoch_seconds.append(time.perf_counter() - start - self.validation_seconds[-1])

    def eval_step(self) -> None:
        start = time.perf_counter()
        super().eval_step()
        self.validation_seconds.append(time.perf_counter() - start)

    def checkpoint_and_earlystop(self, logs: dict[str, float], min_delta: float = 1e-6) -> None:
        self.validation_auc.append(float(logs["AUC"]))
        super().checkpoint_and_earlystop(logs, min_delta)


def mlp(width: int, settings: Settings, output_dim: int | None) -> MLP_Block:
    return MLP_Block(width, list(settings.hidden_units), "ReLU", output_dim, dropout_rates=settings.dropout)


class DeepFM(RecordedModel):
    """One bias + first-order weights + pairwise inner products + MLP."""

    def build(self, feature_map: FeatureMap, settings: Settings, width: int) -> None:
        self.fm = FactorizationMachine(feature_map)
        self.mlp = mlp(width, settings, 1)

    def logits(self, inputs: Inputs, embeddings: torch.Tensor) -> torch.Tensor:
        return self.fm(inputs, embeddings) + self.mlp(embeddings.flatten(start_dim=1))


class DCN(RecordedModel):
    """A linear layer on the outputs of the cross network and of the MLP, concatenated."""

    def build(self, feature_map: FeatureMap, settings: Settings, width: int) -> None:
        self.cross = CrossNet(width, settings.cross_layers)
        self.mlp = mlp(width, settings, None)
        self.output = nn.Linear(width + settings.hidden_units[-1], 1)

    def logits(self, inputs: Inputs, embeddings: torch.Tensor) -> torch.Tensor:
        flat = embeddings.flatten(start_dim=1)
        return self.output(torch.cat([self.cross(flat), self.mlp(flat)], dim=-1))


class FiBiNET(RecordedModel):
    """First-order weights + MLP on the bilinear interactions before and after SENET."""

    def build(self, feature_map: FeatureMap, settings: Settings, width: int) -> None:
        fields, dim = feature_map.num_fields, settings.embedding_dim
        self.senet = SqueezeExcitation(fields, settings.reduction_ratio, "ReLU")
        self.plain = BilinearInteractionV2(fields, dim, "field_interaction")
        self.weighted = BilinearInteractionV2(fields, dim, "field_interaction")
        self.linear = LogisticRegression(feature_map, use_bias=False)
        self.mlp = mlp(fields * (fields - 1) * dim, settings, 1)

    def logits(self, inputs: Inputs, embeddings: torch.Tensor) -> torch.Tensor:
        pairs = torch.cat([self.plain(embeddings), self.weighted(self.senet(embeddings))], dim=1)
        return self.linear(inputs) + self.mlp(pairs.flatten(start_dim=1))


class FinalMLP(RecordedModel):
    """Two gated MLPs, fused; the gates learn their input, as they do by default."""

    def build(self, feature_map: FeatureMap, settings: Settings, width: int) -> None:
        dim, gate_units = settings.embedding_dim, list(settings.gate_units)
        self.gate_inputs = nn.ParameterList(torch.zeros(1, dim) for _ in range(2))
        self.gates = nn.ModuleList(
            MLP_Block(dim, gate_units, "ReLU", width, output_activation="Sigmoid") for _ in range(2)
        )
        self.streams = nn.ModuleList(mlp(width, settings, None) for _ in range(2))
        self.fusion = InteractionAggregation(settings.hidden_units[-1], settings.num_heads)

    def logits(self, inputs: Inputs, embeddings: torch.Tensor) -> torch.Tensor:
        flat = embeddings.flatten(start_dim=1)
        outputs = []
        for start, gate, stream in zip(self.gate_inputs, self.gates, self.streams, strict=True):
            outputs.append(stream(flat * (2 * gate(start.repeat(len(flat), 1)))))
        return self.fusion(*outputs)


class InteractionAggregation(nn.Module):
    """FinalMLP's fusion with FuxiCTR's order of products: every row times every head's matrix, batched over both."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, width // num_heads
        self.linears = nn.ModuleList(nn.Linear(width, 1) for _ in range(2))
        self.weight = nn.Parameter(torch.empty(width * self.head_dim, 1))
        nn.init.xavier_normal_(self.weight)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        heads = [x.view(-1, self.num_heads, self.head_dim) for x in (first, second)]
        matrices = self.weight.view(self.num_heads, self.head_dim, self.head_dim)
        left = heads[0].unsqueeze(2) @ matrices  # [B, heads, 1, head_dim]
        bilinear = (left @ heads[1].unsqueeze(3)).flatten(1).sum(dim=1, keepdim=True)
        return self.linears[0](first) + self.linears[1](second) + bilinear


MODELS: dict[str, type[RecordedModel]] = {"deepfm": DeepFM, "dcn": DCN, "fibinet": FiBiNET, "finalmlp": FinalMLP}
