"""Builds what a run trains: tables on meta, in-backward optimizer, plan, shards, initial values, dense optimizer."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torchrec.distributed import DistributedModelParallel
from torchrec.distributed.model_parallel import DefaultDataParallelWrapper
from torchrec.optim.keyed import CombinedOptimizer

from cove_dist.config import RunConfig
from cove_dist.distributed import DistributedContext, world_group
from cove_dist.embeddings.cpu_lookups import look_up_locally
from cove_dist.embeddings.fields import table_modules
from cove_dist.embeddings.initialization import fill_normal_
from cove_dist.embeddings.optimizers import SPARSE, fuse_optimizer
from cove_dist.embeddings.parts import local_parts, table_weights
from cove_dist.embeddings.sharding import plan_tables, sharders
from cove_dist.embeddings.tables import FIRST_ORDER_SUFFIX
from cove_dist.tasks.base import EpochHook
from cove_dist.tasks.lookups import lookups_by_table
from cove_dist.tasks.registry import task_of
from cove_dist.tasks.task import Evaluator
from cove_dist.torch_compat import set_fused_step
from cove_dist.training.optimization import build_optimizer, build_schedule
from data_pipeline.schema import Schema

logger = logging.getLogger(__name__)


@dataclass
class TrainState:
    """Model, optimizer and learning-rate schedule."""

    model: DistributedModelParallel
    optimizer: CombinedOptimizer
    schedule: LambdaLR
    epoch_hook: EpochHook | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the tensors of a checkpoint; the schedule is not stored, because it depends only on the step."""
        hook = {} if self.epoch_hook is None else {"epoch_hook": self.epoch_hook.state_dict()}
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), **hook}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; `set_step` sets the step."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.epoch_hook is not None:
            self.epoch_hook.load_state_dict(state["epoch_hook"])

    def create_optimizer_state(self) -> None:
        """Allocate the optimizer state, so that a checkpoint can be loaded into it.

        It takes a step with zero gradients: load weights and moments afterwards.
        """
        for name, part in self.optimizer.optimizers:
            if name == "replicated":
                part.init_state()

    def set_step(self, step: int, steps_before: int = 0) -> None:
        """Set the learning rates to those of a step, from the configured rates and warm-up of this run.

        A saved schedule is not loaded: it would restore the rates of the run that saved it. The fused optimizers get
        the step as well, for Adam's correction of the moments: their saved state does not contain it.

        Args:
            step: Steps of this run.
            steps_before: Steps of the runs that this one started from, whose moments it goes on with.
        """
        set_fused_step(self.optimizer, steps_before + step)
        schedule, groups = self.schedule, self.optimizer.param_groups
        rates = [base * factor(step) for base, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
        for group, base, rate in zip(groups, schedule.base_lrs, rates, strict=True):
            group["initial_lr"], group["lr"] = base, rate
        schedule.last_epoch, schedule._step_count, schedule._last_lr = step, step + 1, rates


def build(
    config: RunConfig, schema: Schema, context: DistributedContext, batch_size: int, steps_per_epoch: int | None = None
) -> TrainState:
    """Build, shard and initialize what a run trains. A collective call.

    The initial values depend only on ``config.seed``, not on the plan or the number of ranks; afterwards each rank's
    generator gets a different seed, so that dropout masks differ.

    Args:
        config, schema, context: Configuration, data and distributed context of the run.
        batch_size: Rows per rank, for the planner's cost estimates.
        steps_per_epoch: Number of steps of an epoch, for the learning-rate schedule; None: nothing is trained.

    Raises:
        ConfigError: A setting does not fit this device, the number of ranks, or the data.
    """
    device_type = context.device.type
    config.embeddings.check_device(device_type)
    config.quantizer.check_device(device_type)
    torch.manual_seed(config.seed)
    model = task_of(config).build_model(config, schema)
    fuse_optimizer(model.tables, config.embeddings, device_type)
    plan = plan_tables(
        model,
        list(table_modules(model.tables)),
        config.embeddings,
        device_type=device_type,
        world_size=context.world_size,
        local_world_size=context.local_world_size,
        batch_size=batch_size,
        process_group=world_group(),
        lookups=lookups_by_table(model.tables, config, schema, batch_size, context.world_size),
    )
    model.objective.to(context.device)
    # one rank has nothing to reduce, yet reduction would copy all gradients
    single = context.world_size == 1 and device_type == "cpu"
    sharded = DistributedModelParallel(
        model,
        device=context.device,
        plan=plan,
        sharders=sharders(),
        init_data_parallel=not single,
        data_parallel_wrapper=DefaultDataParallelWrapper(params_to_ignore=untrained(model)),
    )
    look_up_locally(sharded, sparse_gradients=config.embeddings.optimizer.name in SPARSE, single=single)
    initialize_tables(sharded, config.embeddings.init_std, config.seed)
    by_frequency = steps_per_epoch is not None and config.embeddings.optimizer.weight_decay_frequency_power > 0
    counts = task_of(config).row_counts(config, schema) if by_frequency else {}
    optimizer = build_optimizer(sharded, config, counts)
    torch.manual_seed(config.seed * 1_000_003 + context.rank)
    return TrainState(sharded, optimizer, build_schedule(optimizer, config.trainer, steps_per_epoch))


def build_validation(config: RunConfig, schema: Schema, context: DistributedContext) -> Evaluator | None:
    """Build the evaluator of the validation split, if the data have one."""
    if schema.has_split("validation"):
        return task_of(config).build_evaluator(config, schema, "validation", context, {})
    logger.warning(
        "The data %s have no validation split: training runs all %d epochs without early stopping, and its newest"
        " checkpoint is used as the best",
        schema.name, config.trainer.epochs,
    )  # fmt: skip
    return None


def untrained(model: nn.Module) -> list[str]:
    """Return the names of parameters without gradients, such as EMA codebooks, for data parallelism to ignore."""
    return [name for name, parameter in model.named_parameters() if not parameter.requires_grad]


def describe_model(config: RunConfig, schema: Schema) -> dict[str, Any]:
    """Return what must agree for a checkpoint to fit: the head, the tables and the codebooks."""
    return {
        "model": config.model.section,
        "embeddings.dim": config.embeddings.dim,
        **config.quantizer.signature(),
        "tables": {column.table_name: column.num_rows for column in schema.categorical},
        "dense columns": [column.name for column in schema.dense],
        **task_of(config).signature(config),
    }


@torch.no_grad()
def initialize_tables(model: DistributedModelParallel, std: float, seed: int) -> None:
    """Initialize tables from ``N(0, std²)`` and first-order weights with zeros; every rank fills its shards."""
    for table, weight in table_weights(model.module.tables).items():
        for part, row, column in local_parts(weight):
            if table.endswith(FIRST_ORDER_SUFFIX):
                part.zero_()
            else:
                fill_normal_(part, std=std, seed=seed, table=table, row_offset=row, column_offset=column)
