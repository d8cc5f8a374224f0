"""What an audit reckons: by hand where it can be, and on made-up sets whose answer is known."""

import math

import numpy as np
import pytest
import torch

from bigtrain.metrics.audit.birthday import batches_with_a_pair, excess, near_pairs, support_size
from bigtrain.metrics.audit.confusion import accuracy, class_accuracies, confusion, largest_leaks, leaking_classes
from bigtrain.metrics.audit.duplicates import copying_test, near_duplicates, near_threshold
from bigtrain.metrics.audit.modes import (
    Bins,
    bin_scores,
    counted,
    different_bins,
    divergence,
    entropy,
    missing_bins,
    number_of_bins,
    sampling_divergence,
    surprising_bins,
)
from bigtrain.metrics.audit.neighbours import NO_NUMBER, NearestNeighbours, squared_distances
from bigtrain.metrics.audit.overfitting import above_generated, mean_sign, way_to_generated
from bigtrain.metrics.audit.significance import SIGNIFICANCE, rank_test


def cloud(count: int, dims: int = 8, seed: int = 0) -> torch.Tensor:
    """Return standard normal features."""
    return torch.randn(count, dims, generator=torch.Generator().manual_seed(seed))


class TestNeighbours:
    def test_of_points_on_a_line_by_hand(self):
        found = NearestNeighbours(torch.tensor([[0.0], [10.0]]), 2)
        found.add(torch.tensor([7, 8]), torch.tensor([[3.0], [-1.0]]))
        assert found.number_QK.tolist() == [[8, 7], [7, 8]]
        found.add(torch.tensor([9]), torch.tensor([[2.0]]))
        assert found.number_QK.tolist() == [[8, 9], [7, 9]]
        assert found.distance_QK.tolist() == [[1, 2], [7, 8]]

    @pytest.mark.parametrize("block", [1, 7, 100])
    def test_blocks_do_not_matter(self, block):
        query, real = cloud(20), cloud(100, seed=1)
        found = NearestNeighbours(query, 3)
        for number, feature in zip(torch.arange(100).split(block), real.split(block), strict=True):
            found.add(number, feature)
        distance, number = torch.cdist(query.double(), real.double()).sort(1)
        assert torch.equal(found.number_QK, number[:, :3])
        assert torch.allclose(found.distance_QK, distance[:, :3])

    def test_a_training_image_is_not_its_own_neighbour(self):
        real = torch.tensor([[0.0], [1.0], [5.0]])
        found = NearestNeighbours(real, 1, own_Q=torch.tensor([0, 1, NO_NUMBER]))
        found.add(torch.arange(3), real)
        assert found.number_QK[:, 0].tolist() == [1, 0, 2]
        assert found.distance_QK[:, 0].tolist() == [1, 1, 0]

    def test_of_equally_near_ones_the_first_stays_and_too_few_are_said(self):
        found = NearestNeighbours(torch.zeros(1, 1), 3)
        found.add(torch.tensor([4]), torch.ones(1, 1))
        found.add(torch.tensor([2]), -torch.ones(1, 1))
        assert found.number_QK.tolist() == [[4, 2, NO_NUMBER]]
        assert found.distance_QK.tolist() == [[1, 1, math.inf]]

    def test_small_distances_of_large_features_survive(self):
        point = 30 + cloud(1, 64).double()
        near = point + 1e-4 / 8  # 64 components: a distance of 1e-4
        assert squared_distances(point, near).sqrt().item() == pytest.approx(1e-4, rel=0.01)


class TestDuplicates:
    def test_the_threshold_is_an_order_statistic_with_a_known_share(self):
        threshold = near_threshold(torch.arange(1.0, 1000.0))  # 999 distances: 1% of 1000 are 10
        assert (threshold.distance, threshold.rank) == (10.0, 10)
        assert threshold.expected_share == pytest.approx(0.01)
        assert near_threshold(torch.tensor([3.0, 2.0])).rank == 1  # few: the smallest

    def test_equal_distances_count_all(self):
        assert near_threshold(torch.tensor([0.0] * 5 + [1.0] * 94)).rank == 5

    def test_the_probability_is_that_of_ranks(self):
        # Of one real and one generated distance, each is the smaller one with probability 1/2; of two generated ones,
        # at least one is under the real one with 2/3 and both with 1/3.
        real = near_threshold(torch.tensor([1.0]))
        assert near_duplicates(torch.tensor([0.5]), real).probability == pytest.approx(1 / 2)
        assert near_duplicates(torch.tensor([0.5, 2.0]), real).probability == pytest.approx(2 / 3)
        assert near_duplicates(torch.tensor([0.5, 0.6]), real).probability == pytest.approx(1 / 3)
        assert near_duplicates(torch.tensor([1.5, 2.0]), real).probability == pytest.approx(1)

    def test_copies_are_found_and_fresh_images_are_not(self):
        training, held_out = cloud(1000), cloud(200, seed=1)
        fresh, copies = cloud(500, seed=2), training[:500] + 0.01 * cloud(500, seed=3)

        def distances(feature):
            found = NearestNeighbours(feature, 1)
            found.add(torch.arange(1000), training)
            return found.distance_QK[:, 0]

        real = distances(held_out)
        threshold = near_threshold(real)
        assert near_duplicates(distances(copies), threshold).share == 1
        assert near_duplicates(distances(copies), threshold).probability < SIGNIFICANCE
        assert near_duplicates(distances(fresh), threshold).probability > 0.01
        # One copy in ten is enough to be seen.
        some = torch.cat([distances(copies)[:50], distances(fresh)[:450]])
        assert near_duplicates(some, threshold).probability < SIGNIFICANCE
        assert copying_test(distances(copies), real).probability_below < SIGNIFICANCE
        assert abs(copying_test(distances(fresh), real).z) < 2.6

    def test_ranks_by_hand(self):
        test = rank_test(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 2.0]))
        assert test.share_above == pytest.approx(2.5 / 4)  # 1>0, 2>0, 2=2 half
        # Without ties the variance of U is 2 * 2 * 5 / 12 = 5/3; here U = 4, its mean 2.
        assert rank_test(torch.tensor([3.0, 4.0]), torch.tensor([1.0, 2.0])).z == pytest.approx(2 / math.sqrt(5 / 3))
        assert rank_test(torch.ones(3), torch.ones(4)).z == 0
        # 1, 1 against 0, 1: U = 3 with a mean of 2; the triple of ones takes 24 / 12 = 2 off the variance's 5.
        assert rank_test(torch.ones(2), torch.tensor([0.0, 1.0])).z == pytest.approx(
            1 / math.sqrt(4 / 12 * (5 - 24 / 12))
        )
        one_sided = rank_test(cloud(50, 1)[:, 0] + 1, cloud(40, 1, seed=1)[:, 0])
        from scipy.stats import mannwhitneyu

        expected = mannwhitneyu(
            cloud(50, 1)[:, 0] + 1, cloud(40, 1, seed=1)[:, 0], alternative="greater", use_continuity=False,
            method="asymptotic",
        )  # fmt: skip
        assert one_sided.probability_above == pytest.approx(float(expected.pvalue), rel=1e-6)
        assert one_sided.probability_above + one_sided.probability_below == pytest.approx(1)


class TestModes:
    def test_entropy_and_divergence_by_hand(self):
        half, all_in_one = np.array([5, 5, 0]), np.array([0, 10, 0])
        assert entropy(half) == pytest.approx(math.log(2))
        assert entropy(all_in_one) == 0
        assert divergence(all_in_one, half) == pytest.approx(math.log(2))
        assert divergence(half, half) == 0
        assert divergence(half, all_in_one) is None
        assert counted(torch.tensor([2, 0, 2]), 4).tolist() == [1, 0, 2, 0]

    def test_a_sample_of_the_law_has_the_expected_divergence(self):
        draws = np.random.default_rng(0).multinomial(500, np.full(10, 0.1), size=400)
        mean = np.mean([divergence(row, np.full(10, 1)) for row in draws])
        assert mean == pytest.approx(sampling_divergence(10, 500), rel=0.1)

    def test_a_missing_bin_is_one_that_chance_does_not_leave_empty(self):
        real = np.array([100, 100, 2])
        assert missing_bins(np.array([100, 100, 0]), real) == []  # two real images: half and half by chance
        assert missing_bins(np.array([200, 0, 0]), real) == [1]
        assert missing_bins(np.array([191, 9, 0]), real) == [1]  # a few strays do not make it present
        assert missing_bins(np.array([189, 11, 0]), real) == []  # 5.5% where real images have 49.5%: over a tenth

    def test_the_score_of_a_bin_by_hand(self):
        # 60 of 100 against 40 of 100: pooled 1/2, error sqrt(1/4 * 2/100), difference 0.2.
        scores = bin_scores(np.array([60, 40, 0]), np.array([40, 60, 0]))
        assert scores.tolist() == pytest.approx([0.2 / math.sqrt(0.005), -0.2 / math.sqrt(0.005), 0])
        assert different_bins(np.array([60, 40, 0]), np.array([40, 60, 0])) == [0, 1]
        assert different_bins(np.array([52, 48]), np.array([48, 52])) == []

    def test_bins_of_real_against_real_rarely_differ_and_a_lost_cluster_is_seen(self):
        centres = 20 * torch.eye(8)
        real = torch.cat([centres[k] + cloud(200, seed=k) for k in range(8)])
        order = torch.randperm(1600, generator=torch.Generator().manual_seed(0))
        fitted, rest, generated = real[order[:600]], real[order[600:1100]], real[order[1100:]]
        bins = Bins(fitted, 8, seed=0)
        law = counted(bins.of(rest), 8)
        assert len(different_bins(counted(bins.of(generated), 8), law)) < surprising_bins(8)
        assert missing_bins(counted(bins.of(generated), 8), law) == []
        lost = bins.of(generated)
        kept = generated[lost != 3]
        assert missing_bins(counted(bins.of(kept), 8), law) == [3]
        assert different_bins(counted(bins.of(kept), 8), law)[0] == 3

    def test_how_many_bins_fit_and_how_many_may_differ(self):
        assert number_of_bins(1618) == 40
        assert number_of_bins(10**6) == 100
        assert number_of_bins(30) == 0
        from scipy.stats import binom

        most = surprising_bins(40)
        assert binom.sf(most - 1, 40, 0.05) < SIGNIFICANCE <= binom.sf(most - 2, 40, 0.05)


class TestBirthdays:
    def test_pairs_by_hand(self):
        feature = torch.tensor([[0.0], [10.0], [0.5], [20.0], [10.25], [0.2]])
        pairs = near_pairs(feature, 0.6, num_closest=2)
        assert pairs.near_N.tolist() == [2, 1, 2, 0, 1, 2]
        assert (pairs.num_near, pairs.num_pairs) == (4, 15)
        assert [(a, b) for a, b, _ in pairs.closest] == [(0, 5), (1, 4)]
        assert pairs.closest[0][2] == pytest.approx(0.2)
        assert support_size(pairs).num_images == pytest.approx(15 / 4)
        # 0 and 2 meet first in a batch of 4, 1 and 4 in one of 8; 3 never.
        assert pairs.level_N[[0, 1, 2, 4]].tolist() == [2, 3, 2, 3]
        assert pairs.level_N[3] == 63

    def test_blocks_do_not_matter(self, monkeypatch):
        whole = near_pairs(cloud(50, 2), 0.2, 5)
        monkeypatch.setattr("bigtrain.metrics.audit.birthday.BLOCK_IMAGES", 7)
        blocks = near_pairs(cloud(50, 2), 0.2, 5)
        assert torch.equal(whole.near_N, blocks.near_N)
        assert torch.equal(whole.level_N, blocks.level_N)
        assert [pair[:2] for pair in whole.closest] == [pair[:2] for pair in blocks.closest]

    def test_the_support_of_a_generator_of_300_images_is_estimated(self):
        """300 images drawn with replacement: batches hold a pair as the birthday paradox says."""
        pick = torch.randint(300, (4096,), generator=torch.Generator().manual_seed(0))
        pairs = near_pairs(cloud(300)[pick], 1e-6, 4)
        assert support_size(pairs).num_images == pytest.approx(300, rel=0.05)
        shares = batches_with_a_pair(pairs)
        assert set(shares) == {2**level for level in range(1, 10)}
        for size in (8, 16, 32):
            none = math.prod(1 - i / 300 for i in range(size))
            error = math.sqrt(none * (1 - none) / (4096 // size))
            assert shares[size] == pytest.approx(1 - none, abs=4 * error)

    def test_no_pair_gives_a_bound_and_more_pairs_an_excess(self):
        apart = support_size(near_pairs(cloud(400), 1e-3, 1))
        assert apart.num_images is None
        assert apart.at_least == pytest.approx(400 * 399 / 2 / 3)
        few = support_size(near_pairs(cloud(50)[torch.arange(400) % 50], 1e-6, 1))
        assert few.num_images == pytest.approx(400 * 399 / 2 / (50 * 28))
        assert excess(few, apart) > 3.1
        assert excess(apart, apart) == 0

    def test_the_standard_error_is_that_of_repeated_draws(self):
        rates = []
        for seed in range(200):
            pick = torch.randint(20, (100,), generator=torch.Generator().manual_seed(seed)) ** 2 // 20  # unequal
            rates.append(support_size(near_pairs(cloud(20)[pick], 1e-6, 1)))
        spread = np.std([each.rate for each in rates])
        assert np.mean([each.rate_std for each in rates]) == pytest.approx(spread, rel=0.15)


class TestLeakage:
    def test_the_matrix_by_hand(self):
        asked, seen = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 2, 2, 1, 1])
        counts = confusion(asked, seen, 3)
        assert counts.tolist() == [[1, 0, 2], [0, 2, 0], [0, 0, 0]]
        assert accuracy(counts) == pytest.approx(3 / 5)
        assert class_accuracies(counts) == [pytest.approx(1 / 3), 1.0, None]
        assert largest_leaks(counts, 5) == [(0, 2, pytest.approx(2 / 3))]

    def test_a_leak_is_one_beyond_the_classifiers_own_errors(self):
        # Real: 98 of 100 right. A row of 20 with 1 wrong is chance, one with 10 wrong is not.
        counts = np.array([[19, 1, 0], [0, 10, 10], [0, 0, 20]])
        assert leaking_classes(counts, 100, 98) == [1]
        # By Fisher: (10 of 20 right) against (98 of 100): all that matters is the table.
        from scipy.stats import fisher_exact

        chance = fisher_exact([[10, 10], [98, 2]], alternative="less").pvalue
        assert chance * 3 < SIGNIFICANCE
        weak = np.array([[10, 10], [10, 10]])
        assert leaking_classes(weak, 40, 20) == []  # a classifier that reads half of the real ones wrong proves nothing


class TestOverfitting:
    def test_outputs_are_reckoned_from_generated_images_of_their_class(self):
        generated, labels = torch.tensor([1.0, 3.0, 10.0]), torch.tensor([2, 2, 5])
        found = above_generated(torch.tensor([4.0, 4.0, 7.0]), torch.tensor([2, 5, 3]), generated, labels)
        assert found.tolist() == [2.0, -6.0]  # the mean of class 2 is 2, of class 5 10; nothing is known of class 3
        none = torch.full((3,), -1)
        assert above_generated(generated, none, generated, none).tolist() == pytest.approx(
            [1 - 14 / 3, 3 - 14 / 3, 16 / 3]
        )

    def test_the_heuristics_by_hand(self):
        training, held_out, generated = torch.tensor([2.0, 4.0]), torch.tensor([2.0]), torch.tensor([-1.0, 0.0, 1.0])
        assert way_to_generated(training, held_out, generated) == pytest.approx(1 / 3)
        assert way_to_generated(generated, held_out, training) is None
        assert mean_sign(generated) == 0
        assert mean_sign(torch.tensor([1.0, 5.0, -2.0, 0.0])) == pytest.approx(1 / 4)
