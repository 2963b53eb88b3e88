"""A setting that would not act in a run is refused, with the reason and the value that is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from cove_dist.errors import ConfigError
from cove_dist.runs import save_config
from cove_dist.tasks.configuration import compose_run_config, load_run_config
from cove_dist.tasks.registry import task_of
from tests.unit.configuration.schemas import build

COVE, ITEMS = "quantizer=cove", "quantizer=cove_items"
BY_QUANTIZER = ("negatives.category_share=0.2", "negatives.category_codes=quantizer")
SAMPLED = ("sequential.softmax=sampled",)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=bprmf", "trainer.precision=bfloat16"], r"trainer\.precision = bfloat16: .*float32; allowed: float32"),
        (
            ["model=bprmf", "embeddings.optimizer.name=sparse_adam", "trainer.gradient_clip_norm=1"],
            r"trainer\.gradient_clip_norm = 1: .*not clipped under sparse_adam.*; allowed: null",
        ),
        (
            ["model=lightgcn", "trainer.optimizer.learning_rate=0.1"],
            r"trainer\.optimizer\.learning_rate = 0\.1: .*tables",
        ),
        (
            ["model=bprmf", COVE, "quantizer.learning=ema", "trainer.optimizer.name=sgd"],
            r"trainer\.optimizer\.name = sgd",
        ),
        (["quantizer.alpha=0.3"], r"quantizer\.alpha = 0\.3: would do nothing: nothing is quantized; .*allowed: 1\.0"),
        (["model=sasrec", "quantizer.omega_c=0.3"], r"quantizer\.omega_c = 0\.3: .*"),
        (["quantizer=cove", "quantizer.ema_decay=0.5"], r"quantizer\.ema_decay = 0\.5: .*quantizer\.learning=ema"),
        (
            [COVE, "quantizer.learning=ema", "quantizer.codebook_gradient=quantization"],
            r"quantizer\.codebook_gradient = quantization: .*moving averages",
        ),
        (
            [COVE, "quantizer.omega_q=0", "quantizer.beta=0.5"],
            r"quantizer\.beta = 0\.5: .*no quantization loss; .*0\.25",
        ),
        ([COVE, "quantizer.omega_q=0", "quantizer.loss_reduction=sum"], r"loss_reduction = sum: .*omega_q above 0"),
        (
            [COVE, "quantizer.learning=ema", "quantizer.beta=0", "quantizer.omega_q=0.5"],
            r"quantizer\.omega_q = 0\.5: .*commitment term only; acts with quantizer\.beta above 0; allowed: 1\.0",
        ),
        (
            ["model=bprmf", "quantizer=negatives", "quantizer.learning=ema", "quantizer.loss_reduction=sum"],
            r"loss_reduction = sum: .*quantizer\.beta above 0",
        ),
        (
            [COVE, "quantizer.omega_q=0", "quantizer.codebook_gradient=quantization"],
            r"codebook_gradient = quantization: .*stay random; acts with quantizer\.omega_q above 0",
        ),
        (["trainer.schedule.epochs=9"], r"schedule\.epochs = 9: .*schedule\.name=linear or cosine; allowed: null"),
        ([COVE, "quantizer.kmeans_step=3"], r"quantizer\.kmeans_step = 3: .*quantizer\.start=kmeans"),
        ([COVE, "quantizer.kmeans_batches=3"], r"quantizer\.kmeans_batches = 3: .*quantizer\.start=kmeans"),
        (["model=bprmf", "negatives.power=0.5"], r"negatives\.power = 0\.5: .*negatives\.source=popularity"),
        (["model=bprmf", "negatives.hardest_share=0.5"], r"hardest_share = 0\.5: .*hardest_of above 1; allowed: 1\.0"),
        (["model=bprmf", "negatives.hardest_of=4", "negatives.hardest_share=0"], r"hardest_of = 4: .*a share above 0"),
        (
            ["model=bprmf", "quantizer=negatives", "quantizer.codebook_gradient=quantization"],
            r"quantizer\.codebook_gradient = quantization: .*quantizer\.alpha=0",
        ),
        (["model=bprmf", "negatives.category_count=5"], r"category_count = 5: .*category_share above 0; allowed: 8"),
        (
            ["model=bprmf", "negatives.category_share=0.2", "negatives.category_level=0"],
            r"category_level = 0: .*category_codes=quantizer",
        ),
        (
            ["model=bprmf", "loss=softmax"],
            r"loss\._target_ = \S+SampledSoftmax: .* is BPR, .*count above 1 .*; allowed: loss=null",
        ),
        (["model=lightgcn", "loss=softmax", "negatives.hardest_of=4"], r"loss\._target_ = .*the model's own loss"),
        (
            ["model=bprmf", *BY_QUANTIZER, "quantizer=negatives", "quantizer.omega_q=0"],
            r"category_codes = quantizer: .*codebooks, which stay random, .*omega_q above 0; allowed: kmeans",
        ),
        (
            ["model=sasrec", *SAMPLED, *BY_QUANTIZER, ITEMS, "quantizer.alpha=0", "quantizer.omega_q=0"],
            r"category_codes = quantizer: .*stay random",
        ),
        (["model=lightgcn", "interactions.neighbor_pull=1"], r"neighbor_pull = 1: .*neighbors in its layers"),
        (["model=neumf", "interactions.neighbor_pull=1"], r"neighbor_pull = 1: .*no space; acts with bprmf and cfkg"),
        (["embeddings.optimizer.weight_decay_frequency_power=1"], r"frequency_power = 1: .*weight_decay above 0"),
        (["model=sasrec", "negatives.category_share=0.2"], r"category_share = 0\.2: .*sequential\.softmax=sampled"),
        (["model=sasrec", "sequential.sampled=7"], r"sequential\.sampled = 7: .*softmax=sampled; allowed: 4096"),
        (["model=sasrec", "sequential.sampled_power=0.5"], r"sequential\.sampled_power = 0\.5: .*softmax=sampled"),
        (["model=sasrec", "sequential.fuse_output=false"], r"sequential\.fuse_output = false: .*without a quantizer"),
        (["model=sasrec", "sequential.mask_share=0.5"], r"sequential\.mask_share = 0\.5: .*model=bert4rec"),
        (["model=fans", "sequential.mask_last=0.5"], r"sequential\.mask_last = 0\.5: .*model=bert4rec"),
        (["model=bert4rec", "sequential.mask_last=1.0", "sequential.mask_share=0.5"], r"mask_share = 0\.5: .*below 1"),
        (["model=bert4rec", "sequential.curriculum_steps=5"], r"curriculum_steps = 5: .*model=fans; allowed: 0"),
        (["experiment=aotm_fans", "model=sasrec"], r"sequential\.curriculum_steps = 1600: .*model=fans"),
    ],
)
def test_a_setting_that_would_not_act_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_run_config(overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        [COVE, "quantizer.learning=ema", "quantizer.ema_decay=0.5"],
        [COVE, "quantizer.start=kmeans", "quantizer.kmeans_step=3", "quantizer.kmeans_batches=3"],
        ["model=bprmf", "negatives.source=popularity", "negatives.power=0.5"],
        ["model=bprmf", COVE, "trainer.optimizer.learning_rate=0.1"],
        ["model=bprmf", "trainer.optimizer.learning_rate=0.1", "embeddings.optimizer.learning_rate=0.1"],
        ["model=sasrec", "sequential.softmax=sampled", "sequential.sampled=7"],
        ["model=sasrec", ITEMS, "sequential.fuse_output=false", "quantizer.omega_c=0.3"],
        ["model=bert4rec", "sequential.mask_share=0.5"],
        ["model=fans", "sequential.curriculum_steps=5"],
        ["quantizer.alpha=1.0"],
        [COVE, "quantizer.omega_q=0"],
        [COVE, "quantizer.learning=ema", "quantizer.omega_q=0"],
        [COVE, "quantizer.learning=ema", "quantizer.beta=0"],
        [COVE, "quantizer.learning=ema", "quantizer.omega_q=0.5", "quantizer.loss_reduction=sum"],
        [COVE, "quantizer.beta=0", "quantizer.omega_q=0.5", "quantizer.loss_reduction=sum"],
        ["model=bprmf", *BY_QUANTIZER, "quantizer=negatives", "quantizer.learning=ema"],
        ["model=bprmf", *BY_QUANTIZER, "quantizer=negatives", "quantizer.omega_q=0", "quantizer.revive_every=50"],
        ["model=bprmf", *BY_QUANTIZER, ITEMS, "quantizer.omega_q=0"],
        ["model=bprmf", "quantizer=negatives", "quantizer.alpha=0.5"],
        ["model=bprmf", "quantizer=negatives", "embeddings.unseen=codes"],
        ["model=sasrec", "quantizer=negatives", "quantizer.omega_c=0.5"],
        ["model=sasrec", *SAMPLED, *BY_QUANTIZER, "quantizer=negatives"],
        ["model=bprmf", "loss=softmax", "loss.temperature=0.5"],
        ["model=bprmf", "loss=softmax", "negatives.count=2"],
        ["model=bprmf", "loss=softmax", "loss=null"],
        ["model=neumf", "loss=softmax"],
        ["model=bprmf", "loss=bpr"],
        ["model=cfkg", "interactions.neighbor_pull=0.5"],
        [COVE, "quantizer.codebook_gradient=quantization", "quantizer.omega_q=0.5"],
        [COVE, "quantizer.codebook_gradient=quantization", "quantizer.omega_q=0", "quantizer.start=kmeans"],
    ],
)
def test_it_is_taken_where_it_acts_and_where_it_is_the_default(overrides: list[str]) -> None:
    load_run_config(overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sequential.softmax=sampled"], r"sequential\.softmax: is a setting of sequential models .*click-through"),
        (["+sequential.softmax=sampled"], r"sequential\.softmax: is a setting of sequential models only"),
        (["model=sasrec", "negatives.count=3"], r"negatives\.count: is a setting of collaborative filtering only"),
        (["evaluation.rank_test=[full]"], r"evaluation\.rank_test: is a setting of collaborative filtering only"),
        (["model=sasrec", "+evaluation.rank_test=[full]"], r"evaluation\.rank_test: is a setting of collab"),
        (["experiment=aotm_fans", "model=deepfm"], r"curriculum_steps: is a setting of sequential models only"),
        (["task=cf"], r"task: follows from the model"),
        (["data.threshold=3"], r"data\.threshold = 3: is read when data is prepared, not by training"),
        (["data.name=mine"], r"data\.name = mine: is read when data is prepared"),
        (["quantizer=none", "quantizer.item_levels=[5]"], r"quantizer\.item_levels = \[5\]: not with quantizer=none"),
        (["hydra.run.dir=x"], r"hydra\.run\.dir=x: is a setting of Hydra's launcher"),
    ],
)
def test_settings_of_other_tasks_and_programs_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_run_config(overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=bprmf", "quantizer=negatives"], r"quantizer = negatives: nothing would read its codes"),
        (
            ["model=bprmf", "quantizer=negatives", "negatives.category_share=0.2"],
            r"set negatives\.category_share=0\.2 negatives\.category_codes=quantizer",
        ),
        (["model=deepfm", "quantizer=negatives"], r"for codes that are added to embeddings choose .*cove_items"),
        (
            [COVE, "quantizer.start=kmeans", "quantizer.kmeans_step=3"],
            r"kmeans_batches = 10: .*kmeans_step = 3 has only 3 steps up to it; allowed: 1 to 3, or a later",
        ),
    ],
)
def test_quantizers_whose_codes_or_steps_would_be_missing_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_run_config(overrides)


REFUSED = [
    [COVE, "quantizer.start=kmeans", "quantizer.kmeans_step=3"],
    ["model=bprmf", "quantizer=negatives"],
    ["model=bprmf", "loss=softmax"],
    ["model=bprmf", *BY_QUANTIZER, "quantizer=negatives", "quantizer.omega_q=0"],
]


@pytest.mark.parametrize("overrides", REFUSED)
@pytest.mark.parametrize("left", ["checkpoints/step_00000004", "summary.json"])
def test_a_run_that_is_there_keeps_what_is_refused_for_a_new_one(
    tmp_path: Path, overrides: list[str], left: str
) -> None:
    given = [*overrides, f"output={tmp_path}", "trainer.checkpoint.resume=auto"]
    save_config(compose_run_config(given), tmp_path)  # without a checkpoint there is nothing to continue
    with pytest.raises(ConfigError):
        load_run_config(given)
    path = tmp_path / left
    path.parent.mkdir(exist_ok=True)
    path.write_text("{}")
    load_run_config(given)
    with pytest.raises(ConfigError):
        load_run_config(given, replaces=True)
    with pytest.raises(ConfigError):
        load_run_config([*given[:-1], "trainer.debug=true"])
    with pytest.raises(ConfigError, match=r"schedule\.epochs = 9: would do nothing"):
        load_run_config([*given, "trainer.schedule.epochs=9"])


@pytest.mark.parametrize("model", ["deepfm", "bprmf", "sasrec"])
def test_a_run_has_only_the_section_of_its_task(model: str) -> None:
    config, composed = load_run_config([f"model={model}"])
    own = {"deepfm": set(), "bprmf": {"negatives", "interactions"}, "sasrec": {"sequential", "negatives"}}[model]
    sections = {"negatives", "interactions", "sequential"}
    assert sections & set(composed) == own
    assert {key for key in sections if hasattr(config, key)} == own
    assert type(config) is task_of(config).config


@pytest.mark.parametrize("model", ["bprmf", "neumf", "cfkg"])
def test_models_declare_whether_they_have_parameters_other_than_tables(model: str) -> None:
    config, _ = load_run_config([f"model={model}", "embeddings.dim=8"])
    parameters = list(build(config).objective.parameters())
    assert config.model.kind.has_parameters == bool(parameters)
