from collections import defaultdict

import numpy as np
import pytest

from models.data.packing import HOLDOUT, TRAIN, VALIDATION
from models.data.splits import dataset_digest, split_groups


def dataset(groups_per_label: int, labels: int = 2) -> tuple[list[int], list[str], list[str]]:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 6, size=groups_per_label * labels)
    groups = np.repeat(np.arange(len(sizes)), sizes).tolist()
    return groups, [f"c{g % labels}" for g in groups], [f"{i:064x}" for i in range(len(groups))]


def test_shares_are_kept_in_every_label() -> None:
    groups, labels, digests = dataset(100)
    splits = split_groups(groups, labels, digests, "seed")
    for name in set(labels):
        counts = np.bincount(splits[np.array(labels) == name]) / labels.count(name)
        assert counts == pytest.approx([0.7, 0.1, 0.2], abs=0.02)


def test_a_group_never_straddles_splits() -> None:
    groups, labels, digests = dataset(30)
    seen = defaultdict(set)
    for group, split in zip(groups, split_groups(groups, labels, digests, "seed"), strict=True):
        seen[group].add(split)
    assert all(len(splits) == 1 for splits in seen.values())


def test_order_does_not_matter() -> None:
    groups, labels, digests = dataset(30)
    order = np.random.default_rng(1).permutation(len(groups))
    split = split_groups(groups, labels, digests, "seed")
    moved = split_groups(
        [groups[i] for i in order], [labels[i] for i in order], [digests[i] for i in order], "seed"
    )
    assert (split[order] == moved).all()


def test_another_dataset_is_split_otherwise() -> None:
    groups, labels, digests = dataset(30)
    first, second = (split_groups(groups, labels, digests, seed) for seed in ("a", "b"))
    assert (first != second).any()


@pytest.mark.parametrize("count", range(2, 12))
def test_train_and_holdout_get_a_group_each(count: int) -> None:
    groups, labels, digests = dataset(count)
    splits = split_groups(groups, labels, digests, "seed")
    for name in set(labels):
        assert {TRAIN, HOLDOUT} <= set(splits[np.array(labels) == name].tolist())


def test_one_huge_group_does_not_empty_the_holdout() -> None:
    groups = [0, 1] + [2] * 100
    for seed in "abcdefgh":
        splits = split_groups(groups, ["x"] * 102, [f"{i:03d}" for i in range(102)], seed)
        assert {TRAIN, HOLDOUT} <= set(splits.tolist())


def test_single_group_is_for_training() -> None:
    assert split_groups([0, 0], ["x", "x"], ["a", "b"], "seed").tolist() == [TRAIN, TRAIN]


def test_ten_groups_reach_validation() -> None:
    splits = split_groups(list(range(10)), ["x"] * 10, [str(i) for i in range(10)], "seed")
    assert np.bincount(splits).tolist() == [7, 1, 2]
    assert VALIDATION == 1


def test_digest_is_of_the_set() -> None:
    assert dataset_digest([("a", "x"), ("b", "y")]) == dataset_digest([("b", "y"), ("a", "x")])
    assert dataset_digest([("a", "x"), ("b", "y")]) != dataset_digest([("a", "y"), ("b", "x")])
