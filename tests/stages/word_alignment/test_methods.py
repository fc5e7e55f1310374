"""The parts of the methods against references and definitions, and the methods on planted rotations."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import permutations

import numpy as np
import pytest
import scipy.linalg

from stages.base import StageError
from stages.csls import match
from stages.word_alignment.convex import convex_start
from stages.word_alignment.gromov import gromov_wasserstein
from stages.word_alignment.linear import Array, mapped, normalised, procrustes, unit
from stages.word_alignment.refinement import rcsls, refine, supervised
from stages.word_alignment.sampling import quantize
from stages.word_alignment.self_learning import self_learning, similarity_start
from stages.word_alignment.settings import NEIGHBOURS, Sampler, Settings
from stages.word_alignment.transport import entropic_plan, squared_distances
from stages.word_alignment.wasserstein import Quantization, stochastic_schedule, wasserstein_procrustes
from tests.stages.word_alignment.spaces import cloud, planted, rotation

SAMPLERS: tuple[Sampler, ...] = ("random", "kmeans_plus_plus", "lloyd", "kmeans")


def ignore(_: Array) -> None:
    pass


def found_share(source: Array, target: Array, mapping: Array, places: Array) -> float:
    return float((match(mapped(source, mapping), target, NEIGHBOURS).key_of_query == places).mean())


def test_procrustes_is_scipys() -> None:
    generator = np.random.default_rng(0)
    source, target = generator.standard_normal((2, 50, 6))
    expected, _ = scipy.linalg.orthogonal_procrustes(source, target)
    np.testing.assert_allclose(procrustes(source, target), expected, atol=1e-12)


def test_normalised_rows_have_length_one_and_zeros_stay_finite() -> None:
    vectors = normalised(np.vstack([np.random.default_rng(0).standard_normal((50, 6)) + 3, np.zeros((1, 6))]))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1)
    assert np.isfinite(unit(np.zeros((2, 3)))).all()


@pytest.mark.parametrize(("n", "m", "seed"), [(2, 2, 0), (7, 20, 1), (20, 3, 2), (15, 15, 3)])
def test_the_balanced_plan_has_the_marginals(n: int, m: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    a, b = generator.dirichlet(np.ones(n)), generator.dirichlet(np.ones(m))
    costs = squared_distances(*(unit(generator.standard_normal((size, 4))) for size in (n, m)))
    plan = entropic_plan(a, b, costs, epsilon=0.1)
    np.testing.assert_allclose(plan.sum(axis=1), a, atol=1e-5)
    np.testing.assert_allclose(plan.sum(axis=0), b, atol=1e-5)
    assert (plan >= 0).all()


def test_the_plan_is_sinkhorns_fixed_point_whatever_is_added_to_rows_and_columns() -> None:
    generator = np.random.default_rng(0)
    costs = generator.random((8, 9))
    a, b = np.full(8, 1 / 8), np.full(9, 1 / 9)
    plan = entropic_plan(a, b, costs, 0.2)
    scaling = np.log(plan) + costs / 0.2  # u_i + v_j of the dual
    np.testing.assert_allclose(scaling - scaling[:1] - scaling[:, :1] + scaling[0, 0], 0, atol=1e-9)
    shifted = costs + 1000 * generator.random((8, 1)) + 1000 * generator.random(9)
    np.testing.assert_allclose(entropic_plan(a, b, shifted, 0.2), plan, atol=1e-7)


def test_an_unbalanced_plan_leaves_what_is_far() -> None:
    costs = np.array([[0.0, 4.0], [4.0, 4.0]])
    weights = np.array([0.5, 0.5])
    plan = entropic_plan(weights, weights, costs, epsilon=0.05, relaxation=0.5)
    assert plan[0, 0] > 0.4
    assert plan[1].sum() < 0.1
    strict = entropic_plan(weights, weights, costs, epsilon=0.05, relaxation=1000.0)
    np.testing.assert_allclose(strict.sum(axis=1), weights, atol=0.01)


def test_a_plan_that_is_not_finite_is_refused() -> None:
    with pytest.raises(StageError, match="raise epsilon"):
        entropic_plan(np.array([1.0]), np.array([1.0]), np.array([[np.nan]]), 0.1)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_quantization_weighs_what_it_stands_for(sampler: Sampler) -> None:
    points = cloud(400, 8)
    centroids, weights = quantize(points, 40, sampler, np.random.default_rng(0))
    again, _ = quantize(points, 40, sampler, np.random.default_rng(0))
    np.testing.assert_array_equal(centroids, again)
    assert weights.sum() == pytest.approx(1)
    assert len(centroids) == len(weights) <= 40
    if sampler in ("random", "kmeans_plus_plus"):
        assert {row.tobytes() for row in centroids} <= {row.tobytes() for row in points}
    if sampler == "lloyd":  # the mass is where it was
        np.testing.assert_allclose(weights @ centroids, points.mean(axis=0), atol=0.02)


def test_better_samplers_have_less_distortion() -> None:
    points = cloud(1000, 8)

    def distortion(sampler: Sampler) -> float:
        centroids, _ = quantize(points, 30, sampler, np.random.default_rng(0))
        return float(squared_distances(points, centroids).min(axis=1).mean())

    assert distortion("kmeans") <= distortion("lloyd") < distortion("kmeans_plus_plus")


def test_seeds_have_the_probabilities_of_squared_distances() -> None:
    points = np.array([[0.0], [1.0], [3.0], [7.0]])
    runs = 4000
    counts: Counter[frozenset[float]] = Counter()
    for seed in range(runs):
        centroids, _ = quantize(points, 3, "kmeans_plus_plus", np.random.default_rng(seed))
        counts[frozenset(centroids[:, 0].tolist())] += 1
    expected: defaultdict[frozenset[float], float] = defaultdict(float)
    for order in permutations(points[:, 0].tolist(), 3):
        probability = 1 / len(points)
        for taken in (1, 2):
            squares = ((points - order[:taken]) ** 2).min(axis=1)
            probability *= squares[points[:, 0].tolist().index(order[taken])] / squares.sum()
        expected[frozenset(order)] += probability
    for chosen, probability in expected.items():
        deviation = (probability * (1 - probability) / runs) ** 0.5
        assert counts[chosen] / runs == pytest.approx(probability, abs=4 * deviation)


def test_cells_after_seeding_are_the_nearest_seeds() -> None:
    points = cloud(500, 8)
    centroids, weights = quantize(points, 150, "kmeans_plus_plus", np.random.default_rng(0))
    nearest = squared_distances(points, centroids).argmin(axis=1)
    np.testing.assert_array_equal(weights, np.bincount(nearest, minlength=150) / 500)


def test_duplicate_points_get_one_centroid() -> None:
    points = np.repeat(np.eye(3), 5, axis=0)
    centroids, weights = quantize(points, 10, "kmeans_plus_plus", np.random.default_rng(0))
    assert len(centroids) == 3
    np.testing.assert_allclose(weights, 1 / 3)


def test_the_convex_start_finds_a_planted_permutation_exactly() -> None:
    generator = np.random.default_rng(0)
    source = normalised(generator.standard_normal((120, 8)) / np.sqrt(np.arange(1, 9)))
    mapping, order = rotation(8), generator.permutation(120)
    target = (source @ mapping)[order]
    refined = refine(source, target, convex_start(source, target, 60), 20, ignore)
    assert found_share(source, target, refined, np.argsort(order)) == 1
    np.testing.assert_allclose(refined, mapping, atol=1e-6)


@pytest.mark.parametrize(("sampler", "relaxation"), [*((sampler, None) for sampler in SAMPLERS), ("lloyd", 1.0)])
def test_qwp_finds_a_planted_rotation(sampler: Sampler, relaxation: float | None) -> None:
    source, target, _, places = planted(200, 10, noise=0.1)
    start = convex_start(source, target, 20)
    seen: list[Array] = []
    found = wasserstein_procrustes(
        source, target, start, [(4, Quantization(50, sampler, 0, 0.05, relaxation))], np.random.default_rng(0),
        seen.append,
    )  # fmt: skip
    assert len(seen) == 4
    np.testing.assert_allclose(found @ found.T, np.eye(10), atol=1e-9)
    assert found_share(source, target, refine(source, target, found, 20, ignore), places) > 0.97


def test_stochastic_wasserstein_procrustes_doubles_its_batches() -> None:
    schedule = stochastic_schedule(64, 50, 300, 0.05)
    assert [(count, one.centroids) for count, one in schedule] == [(64, 50), (16, 100), (4, 200), (1, 300), (1, 300)]
    source, target, _, places = planted(300, 10, noise=0.1)
    found = wasserstein_procrustes(
        source, target, convex_start(source, target, 20), schedule[1:], np.random.default_rng(0), ignore
    )
    assert found_share(source, target, refine(source, target, found, 20, ignore), places) > 0.97


def test_gromov_wasserstein_finds_a_planted_rotation() -> None:
    source, target, _, places = planted(120, 8)
    found = refine(source, target, gromov_wasserstein(source, target), 20, ignore)
    assert found_share(source, target, found, places) == 1


def test_self_learning_finds_a_planted_rotation() -> None:
    source, target, _, places = planted(300, 10, noise=0.1)
    start = similarity_start(source, target)
    found = self_learning(source, target, start, np.random.default_rng(0), ignore)
    assert found_share(source, target, found, places) > 0.97


def test_supervised_maps_need_few_pairs() -> None:
    source, target, mapping, places = planted(300, 10)
    pairs = {place: frozenset([int(places[place])]) for place in range(30)}
    np.testing.assert_allclose(supervised(source, target, pairs), mapping, atol=1e-6)
    assert found_share(source, target, rcsls(source, target, pairs), places) > 0.95


def test_rcsls_lowers_its_loss() -> None:
    from stages.word_alignment.refinement import _rcsls_loss

    source, target, _, places = planted(300, 10, noise=0.5)
    pairs = {place: frozenset([int(places[place])]) for place in range(100)}
    x, y = source[:100], target[places[:100]]
    start, end = procrustes(x, y), rcsls(source, target, pairs)
    assert _rcsls_loss(end, x, y, source, target)[0] < _rcsls_loss(start, x, y, source, target)[0]
    direction = np.random.default_rng(0).standard_normal(start.shape)
    loss, gradient = _rcsls_loss(start, x, y, source, target)
    step = 1e-6
    numeric = (_rcsls_loss(start + step * direction, x, y, source, target)[0] - loss) / step
    assert numeric == pytest.approx(float((gradient * direction).sum()), rel=1e-3)


def test_refinement_stops_where_nothing_changes() -> None:
    source, target, mapping, _ = planted(100, 8)
    seen: list[Array] = []
    refine(source, target, mapping, 50, seen.append)
    assert len(seen) < 5
    assert refine(source, target, rotation(8, 5), 0, ignore) is not None


def test_centroids_follow_the_vocabulary() -> None:
    assert Settings().centroids_of(2500) == 200
    assert Settings().centroids_of(200_000) == 2000
    assert Settings(centroids=7).centroids_of(2500) == 7
