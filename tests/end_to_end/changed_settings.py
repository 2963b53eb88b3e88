"""For every setting a value that changes what a run leaves behind."""

from __future__ import annotations

from typing import NamedTuple


class Change(NamedTuple):
    """Another value of a setting.

    Attributes:
        value: which differs from the default and from that of the small runs.
        given: overrides under which it acts, of the run that is compared with as well.
        also: overrides of the changed run alone.
    """

    value: str
    given: tuple[str, ...] = ()
    also: tuple[str, ...] = ()


STILL = (  # no epoch is better than the first
    *("trainer.epochs=3", "trainer.max_steps=null", "trainer.early_stopping.patience=9"),
    *("trainer.optimizer.learning_rate=1e-12", "embeddings.optimizer.learning_rate=1e-12"),
)
KMEANS = ("quantizer.start=kmeans", "quantizer.kmeans_step=3", "quantizer.kmeans_batches=3")
SAMPLED = ("sequential.softmax=sampled", "sequential.sampled=20")
SECOND_EPOCH = ("trainer.epochs=2", "trainer.max_steps=null")
BY_QUANTIZER = (*SECOND_EPOCH, "negatives.category_share=0.5", "negatives.category_codes=quantizer")
CHANGES = {
    "data.name": Change("other"),
    "data.path": Change("nowhere"),
    "embeddings.dim": Change("16"),
    "embeddings.init_std": Change("0.3"),
    "embeddings.id_dropout": Change("0.5"),
    "embeddings.cache_load_factor": Change("0.2"),
    "embeddings.optimizer.name": Change("sgd"),
    "embeddings.optimizer.learning_rate": Change("0.1"),
    "embeddings.optimizer.weight_decay": Change("0.5"),
    "embeddings.optimizer.weight_decay_rows": Change("looked_up", ("embeddings.optimizer.weight_decay=0.5",)),
    "embeddings.optimizer.weight_decay_frequency_power": Change("0.6", ("embeddings.optimizer.weight_decay=0.5",)),
    "embeddings.pooling.default": Change("max"),
    "embeddings.sharding.default": Change("data_parallel", ("embeddings.optimizer.name=rowwise_adagrad",)),
    "evaluation.ndcg_at": Change("[3,10]"),
    "evaluation.hit_rate_at": Change("[2]"),
    "evaluation.rank_validation": Change("[sampled,full]"),
    "evaluation.group_by": Change("request_id"),
    "evaluation.exclude_seen": Change("true"),
    "evaluation.weighted": Change("true"),
    "ctr.label": Change("like"),
    "ctr.label_weights": Change("[1.0,0.5]"),
    "evaluation.metrics": Change("{}", also=("metric=brier",)),
    "loss": Change("focal"),
    "seed": Change("7"),
    "output": Change("elsewhere"),
    "quantizer.user_levels": Change("[5]"),
    "quantizer.item_levels": Change("[7,2]"),
    "quantizer.cascade": Change("residual"),
    "quantizer.alpha": Change("0.5"),
    "quantizer.beta": Change("0.9"),
    "quantizer.omega_q": Change("0.1"),
    "quantizer.omega_c": Change("0.5"),
    "quantizer.loss_reduction": Change("sum"),
    "quantizer.codebook_gradient": Change("quantization"),
    "quantizer.learning": Change("ema"),
    "quantizer.ema_decay": Change("0.5", ("quantizer.learning=ema",)),
    "quantizer.start": Change("kmeans", also=("quantizer.kmeans_step=3", "quantizer.kmeans_batches=3")),
    "quantizer.kmeans_step": Change("2", (*KMEANS, "quantizer.kmeans_batches=2")),
    "quantizer.kmeans_batches": Change("1", KMEANS),
    "quantizer.init_std": Change("0.5"),
    "quantizer.revive_every": Change("1"),
    "quantizer.warn_perplexity": Change("1.0"),
    "quantizer.search": Change("chunked"),
    "trainer.device": Change("cuda"),
    "trainer.epochs": Change("2", ("trainer.max_steps=null",)),
    "trainer.max_steps": Change("2"),
    "trainer.batch_size": Change("40"),
    "trainer.evaluation_batch_size": Change("60"),
    "trainer.accumulate_steps": Change("2"),
    "trainer.optimizer.name": Change("sgd"),
    "trainer.optimizer.learning_rate": Change("0.1"),
    "trainer.optimizer.weight_decay": Change("0.5"),
    "trainer.warmup_steps": Change("9"),
    "trainer.schedule.name": Change("linear"),
    "trainer.schedule.epochs": Change("9", ("trainer.schedule.name=linear",)),
    "trainer.schedule.steps": Change("90", ("trainer.schedule.name=cosine",)),
    "trainer.gradient_clip_norm": Change("1e-6", ("trainer.optimizer.name=sgd", "embeddings.optimizer.name=sgd")),
    "trainer.precision": Change("bfloat16"),
    "trainer.workers": Change("2"),
    "trainer.shuffle_buffer": Change("50"),
    "trainer.log_every": Change("2"),
    "trainer.validate_every_steps": Change("2"),
    "trainer.validate_every_minutes": Change("1e-9"),
    "trainer.early_stopping.metric": Change("ndcg@5", STILL),
    "trainer.early_stopping.mode": Change("min"),
    "trainer.early_stopping.patience": Change("1", STILL),
    "trainer.checkpoint.every_steps": Change("1"),
    "trainer.checkpoint.every_minutes": Change("1e-9"),
    "trainer.checkpoint.keep": Change("1", STILL),
    "trainer.debug": Change("true"),
    "trainer.loggers.tensorboard._target_": Change("cove_dist.losses.pairs.BPR"),
    "trainer.profile.after": Change("1"),
    "trainer.profile.steps": Change("2", ("trainer.profile.after=1",)),
    "negatives.count": Change("3"),
    "negatives.source": Change("popularity"),
    "negatives.hardest_of": Change("3"),
    "negatives.hardest_share": Change("0.5", ("negatives.hardest_of=3",)),
    "negatives.category_share": Change("0.5", SECOND_EPOCH),
    "negatives.category_codes": Change("random", (*SECOND_EPOCH, "negatives.category_share=0.5")),
    "negatives.category_count": Change("3", (*SECOND_EPOCH, "negatives.category_share=0.5")),
    "negatives.category_level": Change("0", (*BY_QUANTIZER, "quantizer.item_levels=[7,2]")),
    "interactions.neighbor_pull": Change("0.5"),
    "negatives.power": Change("0.1", ("negatives.source=popularity",)),
    "sequential.softmax": Change("sampled", also=("sequential.sampled=20",)),
    "sequential.sampled": Change("10", SAMPLED),
    "sequential.sampled_power": Change("0.0", SAMPLED),
    "sequential.fuse_output": Change("false"),
    "sequential.item_bias": Change("false"),
    "sequential.mask_share": Change("0.9"),
    "sequential.mask_last": Change("1.0"),
    "sequential.curriculum_steps": Change("8", ("model=fans", "model.num_layers=1", "model.num_heads=2")),
    "sequential.categories": Change("kind"),
    "sequential.two_stage": Change("true"),
}
DECAYED = ("embeddings.optimizer.weight_decay=0.5", "trainer.batch_size=2")
CATEGORIES = (*SECOND_EPOCH, "sequential.softmax=sampled", "sequential.sampled=60", "negatives.category_share=0.5")
BY_LEVELS = (*CATEGORIES, "negatives.category_codes=quantizer", "quantizer=cove_items")
OF_SEQUENTIAL = {  # whose softmax over all items looks all rows up; what has negatives is a sample
    "negatives.category_share": Change("0.2", CATEGORIES),
    "negatives.category_codes": Change("random", CATEGORIES),
    "negatives.category_count": Change("3", CATEGORIES),
    "negatives.category_level": Change("0", (*BY_LEVELS, "quantizer.item_levels=[7,2]")),
    "embeddings.optimizer.weight_decay_rows": Change("looked_up", (*DECAYED, *SAMPLED)),
}
OF_BASE = {  # which quantizes nothing by itself
    "negatives.category_level": Change("0", (*BY_QUANTIZER, "quantizer=cove_items")),
}
MODELS = {
    "hidden_units": "[6]", "hidden_units_2": "[10]", "bottom_units": "[6]", "gate_units": "[6]", "dropout": "0.77",
    "cross_layers": "1", "bilinear": "all", "reduction_ratio": "1", "context": "[1]", "context_2": "[1]",
    "num_heads": "4", "num_layers": "2", "attention_dropout": "0.5", "regularization": "0.7", "margin": "9.0",
    "edge_weight": "5.0", "init_std": "0.5", "layers": "1", "window": "2", "horizontal_filters": "3",
    "vertical_filters": "2", "hidden_dim": "12", "attention_units": "[6]", "softmax": "true",
}  # fmt: skip
ELSEWHERE = {
    **dict.fromkeys(
        (
            f"warm_start.{key}"
            for key in ("run", "checkpoint", "gone", "new_rows", "fold_in_steps", "fold_in_learning_rate")
        ),
        "needs a run to start from: tests/distributed/test_warm_start.py",
    ),
    "embeddings.unseen": "acts on ids that training did not see: tests/distributed/test_unseen_rows.py",
    "evaluation.rank_test": "acts where a run is evaluated: below",
    "trainer.compile": "takes a minute: tests/component/training/test_compiled_heads.py",
    "trainer.on_logger_error": "needs a logger that fails: tests/unit/training/test_loggers.py",
    "trainer.on_nan": "needs a loss that is not finite: tests/component/training/test_skipped_steps.py",
    "trainer.on_disk_full": "needs a full disk: tests/end_to_end/runs/test_full_disk.py",
    "trainer.timeout_seconds": "needs several ranks: tests/distributed/test_liveness.py",
    "trainer.check_replicas_every": "needs several ranks: tests/distributed/test_training.py",
    "trainer.checkpoint.resume": "needs a run to go on from: tests/end_to_end/runs/test_resume.py",
}
