"""The start of a run from a finished one, in the place of random tables and weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

from cove_dist.config import RunConfig
from cove_dist.distributed import DistributedContext, barrier, close_group, open_host_group
from cove_dist.embeddings.parts import table_weights
from cove_dist.errors import ConfigError
from cove_dist.runs import UNKNOWN, WARM_START_FILE
from cove_dist.tasks.registry import task_of
from cove_dist.tasks.saved_data import load_run_with_data
from cove_dist.training.build import TrainState, describe_model, initialize_tables
from cove_dist.warm_start.matching import Counts, Matching
from cove_dist.warm_start.new_rows import start_new_rows
from cove_dist.warm_start.source import Source, check_fits, open_source
from cove_dist.warm_start.transfer import Transfer
from data_pipeline.errors import UserError
from data_pipeline.fingerprint import data_fingerprint
from data_pipeline.json_files import write_json
from data_pipeline.schema import ATTRIBUTES, ENTITIES, Schema
from data_pipeline.trained_pairs import pairs_trained_before

_SLOWEST_COUNT = timedelta(hours=4)  # of pairs, on rank 0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WarmStart:
    """What a run started from.

    Attributes:
        run: Folder of the run.
        checkpoint: Name of its checkpoint.
        steps: Optimizer steps up to this checkpoint, with those of the runs that it was started from in turn.
        new_rows: Start of new ids.
        tables: What happened to the ids of every table.
        trained_pairs: Distinct pairs of user and item, by evaluation split, that the former runs trained on and this
            run's training rows do not hold; `UNKNOWN` if the data of one of them were not found; None where rows are
            sequences, which are not compared.
    """

    run: str
    checkpoint: str
    steps: int
    new_rows: str
    tables: dict[str, Counts]
    trained_pairs: dict[str, int | str | None]

    def save(self, folder: Path) -> None:
        """Write ``warm_start.json`` into the run folder."""
        write_json(folder / WARM_START_FILE, asdict(self))

    def report(self) -> None:
        """Log the number of ids matched, new, gone and kept of every table."""
        logger.info("Warm start from %s of %s", self.checkpoint, self.run)
        for table, counts in self.tables.items():
            logger.info(
                "Table %s: %s ids keep their rows, %s are new (%s), %s are gone (their rows are dropped); %s have no"
                " training row",
                table, f"{counts.matched:,}", f"{counts.new:,}", self.new_rows, f"{counts.gone:,}", f"{counts.kept:,}",
            )  # fmt: skip
        for split, pairs in self.trained_pairs.items():
            if isinstance(pairs, int) and pairs:
                logger.warning(
                    "%s of the user-item pairs of the %s split were training rows of %s, and are not training rows now:"
                    " its metrics are better than the truth. Split both data sets by time",
                    f"{pairs:,}", split, self.run,
                )  # fmt: skip


def start_warm(config: RunConfig, schema: Schema, context: DistributedContext, train_state: TrainState) -> WarmStart:
    """Move the rows and weights of the run that ``warm_start.run`` names into a newly built run. Collective.

    Steps, epochs and the learning-rate schedule start from zero; Adam's correction of the moments goes on. Writes
    nothing.

    Raises:
        ConfigError: The run has another model, columns or optimizer, or its data have changed; or ids that are gone
            are to be kept.
        CheckpointError: The run has no complete checkpoint.
    """
    source = open_source(config)
    former = describe_model(source.config, source.schema)
    check_fits(source, former, describe_model(config, schema), config, schema)
    _check_data_bound(config, source)
    train_state.create_optimizer_state()
    initialize_tables(train_state.model, config.embeddings.init_std, config.seed)  # after the step that makes the state
    model = train_state.model.module
    matching = Matching(source, schema, config.data.path, list(table_weights(model.tables)))
    if config.warm_start.gone == "keep":
        _require_all(source, config.data.path, matching.counts)
    Transfer(source, model, train_state.state_dict(), schema, matching).run()
    train_state.set_step(0, source.steps)
    model.objective.reset_steps()
    if config.warm_start.new_rows not in ("random", "zero"):
        tables = {entity: schema.entity(entity).table_name for entity in ENTITIES}
        trained = {entity: matching.trained(table) for entity, table in tables.items() if table in matching.tables}
        of_task = task_of(config).build_new_rows(config, schema, context, model, trained)
    else:
        of_task = None
    start_new_rows(model, config, schema, matching, context, of_task)
    return WarmStart(
        run=str(config.warm_start.run),
        checkpoint=source.checkpoint.name,
        steps=source.steps,
        new_rows=config.warm_start.new_rows,
        tables=matching.counts,
        trained_pairs=count_trained_pairs(source, config, schema, context),
    )


def count_trained_pairs(
    source: Source, config: RunConfig, schema: Schema, context: DistributedContext
) -> dict[str, int | str | None]:
    """Return `WarmStart.trained_pairs` on rank 0 and nothing on the others, which wait for it. Collective.

    Rank 0 reads the training rows of all runs of the chain, which may take longer than ``trainer.timeout_seconds``.
    """
    group = open_host_group(_SLOWEST_COUNT)
    pairs = _trained_pairs(source, config, schema) if context.is_main else {}
    barrier(group)
    close_group(group)
    return pairs


def _trained_pairs(source: Source, config: RunConfig, schema: Schema) -> dict[str, int | str | None]:
    former, whole = _former_data(source)
    pairs: dict[str, int | str | None] = {}
    for split in ("validation", "test"):
        found = pairs_trained_before(former, config.data.path, schema, split)
        unknown = not whole and found is not None and schema.has_split(split)
        pairs[split] = UNKNOWN if unknown else found
    return pairs


def _former_data(source: Source) -> tuple[list[tuple[Path | str, Schema]], bool]:
    """Return the data of the run to start from and of those that it started from in turn, and whether all were found.

    Data that changed after an earlier run was trained on them count as not found.
    """
    found: list[tuple[Path | str, Schema]] = [(source.config.data.path, source.schema)]
    run = source.config.warm_start.run
    try:
        while run is not None:
            config, _ = load_run_with_data(run)
            found.append((config.data.path, Schema.load(config.data.path)))
            run = config.warm_start.run
    except UserError as error:
        logger.warning(
            "The earlier run %s cannot be followed: %s. Whether it was trained on rows of validation and test is"
            " unknown: their metrics will not be compared with those of other runs",
            run, error,
        )  # fmt: skip
        return found, False
    return found, True


def _require_all(source: Source, data: str, tables: Mapping[str, Counts]) -> None:
    """Refuse data without a row for every id of the source. Attributes are those that the items of the data have."""
    ids = {table: counts for table, counts in tables.items() if table != ATTRIBUTES}
    missing = [f"{counts.gone:,} of {table}" for table, counts in ids.items() if counts.gone]
    if missing:
        raise ConfigError(
            f"warm_start.gone = keep: {data} has no rows for ids of {source.run}: {', '.join(missing)}. Prepare it with"
            f" keep_ids={source.config.data.path}, or set warm_start.gone=drop"
        )


def _check_data_bound(config: RunConfig, source: Source) -> None:
    key = task_of(config).data_bound(config)
    if key is not None and source.meta.data != data_fingerprint(config.data.path):
        raise ConfigError(
            f"warm_start.run = {source.run}: {key} is set, and what it trains is numbered by the data; allowed with the"
            f" data of that run, {source.config.data.path}, only"
        )
