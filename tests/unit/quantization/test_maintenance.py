"""Upkeep of codebooks in a plain torch loop, as a user without TorchRec has it."""

from __future__ import annotations

import pickle
from functools import cache

import pytest
import torch
from sklearn.cluster import KMeans

from cove_dist.quantization import CascadedQuantizer, CodebookMaintenance, MaintenanceSettings, Replicas, search
from cove_dist.quantization.assignment import Cascade
from tests.unit.quantization.loops import DIM, Loop, is_row_of, same
from tests.unit.quantization.simulated import on_replicas
from tests.unit.quantization.test_quantizer import LargestTensor

LEARNING = ("gradient", "ema")


@pytest.mark.parametrize("learning", LEARNING)
def test_kmeans_starts_every_level_at_its_step_from_the_batches_before_it(learning: str) -> None:
    """Cluster centres are means: every coarse code lies where the fine codes that chose it have theirs."""
    started = Loop(MaintenanceSettings("kmeans", kmeans_step=6, kmeans_batches=3), learning, scale=100.0)
    random = Loop(MaintenanceSettings(), learning, scale=100.0)
    for step in range(1, 6):
        started.step(step)
        random.step(step)
        assert same(started.codebooks(), random.codebooks())
    started.step(6)
    seen = started.batches[4:7].unique()
    fine, coarse = started.codebooks()
    assert fine.norm(dim=1).max() < 10 < random.codebooks()[0].norm(dim=1).min()
    vectors = random.table.weight.detach()[seen]  # at step 5: near those of steps 4 to 6
    codes = torch.cdist(vectors, fine).argmin(dim=1)
    assert len(codes.unique()) == 20
    counts = torch.bincount(started.batches[4:7].flatten(), minlength=60)[seen].unsqueeze(1)
    sums = torch.zeros(20, DIM).index_add_(0, codes, vectors * counts)
    mass = torch.zeros(20, 1).index_add_(0, codes, counts.float())
    torch.testing.assert_close(fine, sums / mass, rtol=0, atol=0.15)
    parents = torch.cdist(fine, coarse).argmin(dim=1)
    upper = torch.zeros(4, DIM).index_add_(0, parents, fine * mass)
    torch.testing.assert_close(coarse, upper / torch.zeros(4, 1).index_add_(0, parents, mass), rtol=0, atol=0.15)


@pytest.mark.parametrize("learning", LEARNING)
def test_kmeans_starts_a_residual_cascade_on_what_the_level_before_leaves(learning: str) -> None:
    loop = Loop(
        MaintenanceSettings("kmeans", kmeans_step=4, kmeans_batches=4), learning, scale=100.0, cascade="residual"
    )
    for step in range(1, 4):
        loop.step(step)
    vectors = loop.table.weight.detach().clone()[loop.batches[1:5].unique()]  # step 4 moves them a little further
    loop.step(4)
    coarse, fine = loop.codebooks()
    left = vectors - coarse[torch.cdist(vectors, coarse).argmin(dim=1)]
    codes = torch.cdist(left, fine).argmin(dim=1)
    within = (left - fine[codes]).square().sum()
    reference = KMeans(4, n_init=20, random_state=0).fit(left.numpy())
    assert len(codes.unique()) == 4
    assert within < 1.15 * reference.inertia_ < left.square().sum()


@pytest.mark.parametrize("learning", LEARNING)
def test_a_residual_cascade_revives_codes_on_what_the_level_before_leaves(learning: str) -> None:
    loop = Loop(MaintenanceSettings(revive_every=1), learning, scale=5.0, cascade="residual")
    without = Loop(MaintenanceSettings(), learning, scale=5.0, cascade="residual")
    revived = loop.step(1)
    without.step(1)
    coarse, fine = without.codebooks()
    placed = loop.codebooks()[1]
    placed = placed[(placed != fine).any(dim=1)]
    assert len(placed) == revived["item_2"] > 0
    vectors = loop.table.weight.detach()[loop.batches[1].unique()]
    left = vectors - coarse[torch.cdist(vectors, coarse).argmin(dim=1)]
    distances = torch.cdist(placed, left).amin(dim=1)
    assert distances.max() < 0.2  # an optimizer step moves a component by 0.01


@pytest.mark.parametrize("learning", LEARNING)
def test_kmeans_on_fewer_vectors_than_codes_places_a_code_on_each(learning: str) -> None:
    loop = Loop(MaintenanceSettings("kmeans", kmeans_step=1, kmeans_batches=5), learning, scale=100.0)
    loop.batches[1] = torch.arange(7).repeat(4)[:24]
    loop.quantizer.keep_observations = True
    before = loop.codebooks()[0]
    loop.step(1)
    placed = (loop.codebooks()[0] != before).any(dim=1)
    if learning == "ema":
        assert placed[:7].all()
    assert loop.codebooks()[0][:7].norm(dim=1).max() < 10
    assert loop.codebooks()[0][7:].norm(dim=1).min() > 10
    loop.step(2)


@pytest.mark.parametrize("learning", LEARNING)
def test_revival_moves_dead_codes_onto_live_vectors_and_no_live_code(learning: str) -> None:
    revived = Loop(MaintenanceSettings(revive_every=3), learning, scale=5.0)
    plain = Loop(MaintenanceSettings(), learning, scale=5.0)
    for step in (1, 2):
        assert revived.step(step) == plain.step(step) == {}
    table = revived.table.weight.detach().clone()[revived.batches[3]]  # what step 3 quantizes
    placed = revived.step(3)
    plain.step(3)
    usage = plain.quantizer.usage()
    for level, inputs in enumerate((table, revived.codebooks()[0][usage[0] > 0])):
        dead = usage[level] == 0
        after, before = revived.codebooks()[level], plain.codebooks()[level]
        moved = (after != before).any(dim=1)
        assert not moved[~dead].any()
        assert 0 < placed[f"item_{level + 1}"] == moved.sum() <= dead.sum()
        assert is_row_of(after[moved], inputs)
        assert len(after[moved].unique(dim=0)) == moved.sum()
    alive = len(plain.used(range(3, 4))[0])
    assert len(revived.used(range(3, 4))[0]) >= alive + 5


def test_revival_after_a_start_by_kmeans_waits_for_a_whole_interval_of_its_codes() -> None:
    """Uses are counted from the start on: after 2 of 5 steps, codes that are merely rare would count as dead."""
    started = MaintenanceSettings("kmeans", kmeans_step=13, revive_every=5)
    assert [step for step in range(1, 31) if started.revives(step)] == [5, 10, 20, 25, 30]
    exactly = MaintenanceSettings("kmeans", kmeans_step=10, revive_every=5)
    assert [step for step in range(1, 31) if exactly.revives(step)] == [5, 15, 20, 25, 30]
    assert [step for step in range(1, 21) if MaintenanceSettings(revive_every=5).revives(step)] == [5, 10, 15, 20]


@pytest.mark.parametrize("learning", LEARNING)
def test_revival_with_nothing_dead_changes_nothing(learning: str) -> None:
    loops = [Loop(MaintenanceSettings(revive_every=every), learning) for every in (2, None)]
    for loop in loops:
        loop.batches = torch.arange(60).expand(5, 60)
        with torch.no_grad():
            loop.quantizer.codebooks[0].copy_(loop.table.weight[:20])
            loop.quantizer.codebooks[1].copy_(loop.table.weight[:4])
    placed = [[loop.step(step) for step in range(1, 5)] for loop in loops]
    assert placed == [[{}, {"item_1": 0, "item_2": 0}] * 2, [{}] * 4]
    assert same(loops[0].codebooks(), loops[1].codebooks())


@pytest.mark.parametrize(
    ("optimizer", "moments"),
    [(torch.optim.Adam, ("exp_avg", "exp_avg_sq")), (torch.optim.Adagrad, ("sum",)), (torch.optim.SGD, ())],
)
def test_only_moments_of_revived_rows_are_reset(
    optimizer: type[torch.optim.Optimizer], moments: tuple[str, ...]
) -> None:
    revived = Loop(MaintenanceSettings(revive_every=4), optimizer=optimizer, scale=3.0)
    plain = Loop(MaintenanceSettings(), optimizer=optimizer, scale=3.0)
    for loop in (revived, plain):
        loop.batches[1] = torch.arange(24)
        for step in range(1, 4):
            loop.step(step)
        if moments:  # every row has moments, those of dead codes too
            for codebook in loop.quantizer.codebooks:
                for name in moments:
                    loop.optimizer.state[codebook][name] += 1
        loop.step(4)
    for ours, theirs in zip(revived.quantizer.codebooks, plain.quantizer.codebooks, strict=True):
        moved = (ours != theirs).any(dim=1)
        assert moved.any() and not moved.all()
        for name in moments:
            after, before = revived.optimizer.state[ours][name], plain.optimizer.state[theirs][name]
            new = torch.zeros(DIM) if name == "exp_avg" else before[~moved].mean(dim=0)
            assert before[moved].all()
            assert torch.equal(after[moved], new.expand(int(moved.sum()), DIM))
            assert torch.equal(after[~moved], before[~moved])
    weight = revived.optimizer.state[revived.table.weight], plain.optimizer.state[plain.table.weight]
    for name in moments:
        assert torch.equal(weight[0][name], weight[1][name])


def test_revived_codes_stay_alive_under_adam_at_a_high_learning_rate() -> None:
    """With second moments of zero they would leave at six times the rate, and be dead at every revival again."""
    torch.manual_seed(0)
    z, quantizer = torch.randn(600, 16), CascadedQuantizer(16, (50, 5), init_std=10.0)
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=1.0)
    maintenance = CodebookMaintenance(
        {"item": quantizer}, MaintenanceSettings(revive_every=50), optimizer_state=optimizer.state.__getitem__
    )
    revived = []
    for step in range(1, 201):
        optimizer.zero_grad()
        quantizer(z).loss.backward()
        optimizer.step()
        revived.append(maintenance.after_step(step).get("item_1", 0))
    assert max(revived) > 25
    assert revived[-1] < 5


def test_only_counts_of_revived_rows_are_reset() -> None:
    revived, plain = (Loop(MaintenanceSettings(revive_every=every), "ema", scale=3.0) for every in (4, None))
    for step in range(1, 5):
        revived.step(step)
        plain.step(step)
    moved = torch.cat([(a != b).any(1) for a, b in zip(revived.codebooks(), plain.codebooks(), strict=True)])
    ours, theirs = revived.quantizer.moving_averages.counts, plain.quantizer.moving_averages.counts
    assert moved.any()
    assert torch.equal(ours[moved], torch.ones(int(moved.sum())))
    assert torch.equal(ours[~moved], theirs[~moved])


@pytest.mark.parametrize("cascade", ["codes", "residual"])
@pytest.mark.parametrize("learning", LEARNING)
@pytest.mark.parametrize("world_size", [2, 3])
def test_replicas_hold_the_same_to_the_bit(learning: str, world_size: int, cascade: Cascade) -> None:
    def train(replicas: Replicas) -> tuple[list[torch.Tensor], int]:
        loop = Loop(MaintenanceSettings("kmeans", 5, 3, revive_every=4), learning, replicas, scale=3.0, cascade=cascade)
        revived = sum(sum(loop.step(step).values()) for step in range(1, 17))
        return [*loop.codebooks(), *loop.quantizer.buffers()][:3], revived

    (first, revived), *others = on_replicas(world_size, train)
    assert revived > 10
    assert all(tensor.isfinite().all() for tensor in first)
    for other, count in others:
        assert count == revived
        assert same(other[:2], first[:2])


KMEANS = MaintenanceSettings("kmeans", kmeans_step=6, kmeans_batches=4, revive_every=4)


@cache
def whole_loop(learning: str, cascade: Cascade) -> tuple[Loop, list[dict[str, int]]]:
    """A loop of 14 steps, and what was revived at each."""
    loop = Loop(KMEANS, learning, scale=3.0, cascade=cascade)
    return loop, [loop.step(step) for step in range(1, 15)]


@pytest.mark.parametrize("cascade", ["codes", "residual"])
@pytest.mark.parametrize("learning", LEARNING)
@pytest.mark.parametrize("stop", [3, 5, 6, 9])
def test_a_loop_goes_on_from_its_state_exactly(learning: str, stop: int, cascade: Cascade) -> None:
    """Stopped while vectors are gathered, at the k-means step, and between revivals."""
    whole, expected = whole_loop(learning, cascade)
    stopped, resumed = (Loop(KMEANS, learning, scale=3.0, cascade=cascade) for _ in range(2))
    before = [stopped.step(step) for step in range(1, stop + 1)]
    states = [part.state_dict() for part in (stopped.table, stopped.quantizer, stopped.optimizer, stopped.maintenance)]
    stored = pickle.loads(pickle.dumps(states))
    for part, state in zip(
        (resumed.table, resumed.quantizer, resumed.optimizer, resumed.maintenance), stored, strict=True
    ):
        part.load_state_dict(state)
    assert before + [resumed.step(step) for step in range(stop + 1, 15)] == expected
    assert same(resumed.codebooks(), whole.codebooks())
    assert torch.equal(resumed.table.weight, whole.table.weight)


def test_the_seed_decides_what_is_drawn() -> None:
    def revive(seed: int) -> list[torch.Tensor]:
        loop = Loop(MaintenanceSettings(revive_every=1, seed=seed), scale=3.0)
        loop.step(1)
        return loop.codebooks()

    assert same(revive(0), revive(0))
    assert not same(revive(0), revive(1))


def test_vectors_are_kept_only_for_the_steps_that_need_them() -> None:
    loop = Loop(MaintenanceSettings("kmeans", kmeans_step=4, kmeans_batches=2, revive_every=3))
    kept = []
    for step in range(1, 9):
        loop.step(step)
        assert loop.quantizer.observations == []
        kept.append(loop.quantizer.keep_observations)
    assert kept == [False, True, True, False, False, False, False, True]  # for steps 2, 3, …


def test_a_step_that_no_pass_came_before_is_refused() -> None:
    loop = Loop(MaintenanceSettings(revive_every=2))
    loop.step(1)
    with pytest.raises(RuntimeError, match=r"after_step\(2\): quantizer 'item' had no training pass"):
        loop.maintenance.after_step(2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": "means"}, "start = 'means': allowed: 'random', 'kmeans'"),
        ({"kmeans_step": 0}, "kmeans_step = 0: must be at least 1"),
        ({"kmeans_batches": 0}, "kmeans_batches = 0"),
        ({"revive_every": 0}, "revive_every = 0"),
    ],
)
def test_bad_settings(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MaintenanceSettings(**settings)


@pytest.mark.parametrize("learning", LEARNING)
def test_memory_of_maintenance_does_not_grow_with_vectors_times_codes(learning: str) -> None:
    quantizer = CascadedQuantizer(4, (1000, 30), learning=learning)
    maintenance = CodebookMaintenance({"item": quantizer}, MaintenanceSettings("kmeans", 1, 1, revive_every=2))
    z = torch.randn(4000, 4)
    with LargestTensor() as tracker:
        for step in (1, 2):
            quantizer(z)
            maintenance.after_step(step)
    assert tracker.largest <= search.WORKSPACE_CPU < len(z) * 1000
    assert len(quantizer(z).codes[:, 0].unique()) > 900
