"""Partitions: every slice gets weights that add up to one, from the groups that the papers say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volrecon.errors import ConfigError
from volrecon.priors.partitions import Partition, alternating, blended, neighbours

BLENDINGS = st.sampled_from(["mean", "last"])
GAPS = st.sampled_from([(1,), (0,), (1, 3), (0, 1, 2, 3), (1, 2, 4)])


def check(partition: Partition, slices: int) -> None:
    """What every partition promises."""
    groups, weights = partition.groups, partition.weights
    assert groups.shape == weights.shape
    assert weights.dtype == np.float32
    assert (weights >= 0).all()
    total = np.zeros(slices)
    np.add.at(total, groups, weights)
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert (np.diff(groups.min(axis=1)) >= 0).all()
    assert partition.counts.tolist() == [(groups == z).sum() for z in range(slices)]


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), GAPS, st.integers(0, 9), st.data(), BLENDINGS)
def test_alternating(slices, k, gaps, step, data, blending):
    partition = alternating(slices, k, gaps, step, data.draw(st.integers(0, k - 1)), blending)
    check(partition, slices)
    if slices > k * partition.gap:
        assert (np.diff(partition.groups, axis=1) == partition.gap).all()
    if blending == "last":
        assert set(np.unique(partition.weights)) <= {0, 1}


@settings(max_examples=50, deadline=None)
@given(slices=st.integers(1, 30), j=st.integers(0, 3))
def test_neighbours(slices, j):
    partition = neighbours(slices, 2 * j + 1, 1)
    check(partition, slices)
    assert partition.groups[:, j].tolist() == list(range(slices))
    assert (partition.weights[:, j] == 1).all()
    for z, group in enumerate(partition.groups):
        assert group.tolist() == [min(max(n, 0), slices - 1) for n in range(z - j, z + j + 1)]


def test_groups_of_an_even_number_have_no_middle():
    with pytest.raises(ConfigError, match="groups of 4 slices have no middle"):
        neighbours(9, 4, 1)


def written_one_after_another(order: list[list[int]], slices: int) -> list[list[int]]:
    """The group that a loop as published leaves in every slice."""
    volume: list[list[int]] = [[]] * slices
    for group in order:
        for z in group:
            volume[z] = group
    return volume


def winners(partition: Partition, slices: int) -> list[list[int]]:
    volume: list[list[int]] = [[]] * slices
    for group, weights in zip(partition.groups.tolist(), partition.weights, strict=True):
        for z, weight in zip(group, weights, strict=True):
            if weight == 1:
                volume[z] = group
    return volume


@pytest.mark.parametrize("slices", [3, 4, 5, 9, 10, 11])
@pytest.mark.parametrize("offset", [0, 1, 2])
def test_last_is_what_the_published_loop_leaves(slices, offset):
    """First the triples at both ends, then those from the offset on; what is written later stays."""
    order = [[0, 1, 2], [slices - 3, slices - 2, slices - 1]]
    order += [[n, n + 1, n + 2] for n in range(offset, slices - 2, 3)]
    found = alternating(slices, 3, (1,), 0, offset, "last")
    assert winners(found, slices) == written_one_after_another(order, slices)


def test_last_of_jump_groups_is_the_last():
    """Eleven slices: blocks 0 to 8 and 2 to 10; what both hold is the second's."""
    found = alternating(11, 3, (1, 3), 1, 0, "last")
    assert winners(found, 11)[:2] == [[0, 3, 6], [1, 4, 7]]
    assert winners(found, 11)[2:5] == [[2, 5, 8], [3, 6, 9], [4, 7, 10]]


def test_mean_counts_every_output_once():
    found = blended(np.array([[0, 1, 2], [1, 2, 3]]), 1, "mean")
    assert found.weights.tolist() == [[1, 0.5, 0.5], [0.5, 0.5, 1]]
    copies = blended(np.array([[0, 0, 0, 0]]), 0, "mean")
    assert copies.weights.tolist() == [[0.25] * 4]
    assert blended(np.array([[0, 1, 1]]), 1, "last").weights.tolist() == [[1, 0, 1]]


def test_adjacent_and_jump_groups_take_turns():
    """Even steps gap 1; odd steps each of the larger gaps in turn."""
    assert [alternating(13, 3, (0, 1, 2, 3), step, 0).gap for step in range(8)] == [1, 2, 1, 3, 1, 2, 1, 3]
    assert alternating(13, 3, (1, 2, 3), 1, 0).groups[0].tolist() == [0, 2, 4]
    assert alternating(13, 3, (1, 2, 3), 3, 0).groups[0].tolist() == [0, 3, 6]


def test_without_larger_gaps_there_are_no_jumps():
    for step in range(6):
        found = alternating(27, 3, (1,), step, 0)
        assert found.gap == 1
        assert (np.diff(found.groups, axis=1) == 1).all()


def test_a_network_that_knows_only_jumps_gets_only_jumps():
    assert {alternating(7, 3, (0, 2), step, 0).gap for step in range(4)} == {2}
    with pytest.raises(ConfigError, match=r"5 slices are too few for groups of 3 with gaps \(0, 2\)"):
        alternating(5, 3, (0, 2), 0, 0)


@pytest.mark.parametrize(("slices", "gaps"), [(5, {1}), (6, {2}), (8, {2}), (9, {2, 3})])
def test_jumps_wait_for_enough_slices(slices, gaps):
    assert {alternating(slices, 3, (1, 2, 3), step, 0).gap for step in (1, 3)} == gaps


@pytest.mark.parametrize(("slices", "gaps"), [(7, (0,)), (1, (0, 1, 2)), (1, (0,))])
def test_gap_0_repeats_one_slice(slices, gaps):
    found = alternating(slices, 3, gaps, 1, 0)
    assert found.gap == 0
    assert found.groups.tolist() == [[z, z, z] for z in range(slices)]


@settings(max_examples=30, deadline=None)
@given(slices=st.integers(1, 20), batch=st.integers(1, 9), blending=BLENDINGS)
def test_batches_are_all_groups_in_order(slices, batch, blending):
    found = alternating(slices, 3, (1, 2), 0, 1, blending)
    batches = list(found.batches(batch))
    assert np.array_equal(np.concatenate([groups for groups, _ in batches]), found.groups)
    assert np.array_equal(np.concatenate([weights for _, weights in batches])[:, :, 0, 0], found.weights)
    assert all(weights.shape == (*groups.shape, 1, 1) for groups, weights in batches)
    assert max(len(groups) for groups, _ in batches) <= batch
