"""Divide a dataset into train, validation and holdout by whole groups, label by label."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from models.data.packing import HOLDOUT, TRAIN, VALIDATION

SHARES = {TRAIN: 0.7, HOLDOUT: 0.2, VALIDATION: 0.1}
"""In the order in which a split is preferred when two lack equally many images."""


def dataset_digest(images: Iterable[tuple[str, str]]) -> str:
    """Return the SHA-256 over the sorted `(pixel digest, label)` pairs: the set, not its order."""
    digest = hashlib.sha256()
    for sha256, label in sorted(images):
        digest.update(f"{sha256} {label}\n".encode())
    return digest.hexdigest()


def split_groups(
    groups: Sequence[int], labels: Sequence[str], digests: Sequence[str], seed: str
) -> NDArray[np.uint8]:
    """Return the split of each image, from its group, label, pixel digest and the dataset's digest.

    A group counts for the label that most of its images have. Within a label the groups come in an
    order drawn from `seed`, and each goes where most images are lacking, so that 70, 10 and 20 % of
    the images end in train, validation and holdout as nearly as whole groups allow. From two groups
    on, train and holdout get at least one each; a single group is for training. Which split an
    image is in does not depend on the order of the input.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    strata: dict[str, list[list[int]]] = defaultdict(list)
    for indices in members.values():
        counts = Counter(labels[index] for index in indices)
        strata[min(counts, key=lambda label: (-counts[label], label))].append(indices)
    splits = np.zeros(len(groups), dtype=np.uint8)
    for stratum in strata.values():
        for indices, split in _split_stratum(stratum, digests, seed):
            splits[indices] = split
    return splits


def _split_stratum(
    stratum: list[list[int]], digests: Sequence[str], seed: str
) -> list[tuple[list[int], int]]:
    def draw(indices: list[int]) -> str:
        first = min(digests[index] for index in indices)
        return hashlib.sha256(f"{seed} {first}".encode()).hexdigest()

    total = sum(len(indices) for indices in stratum)
    lacking = {split: share * total for split, share in SHARES.items()}
    chosen = []
    for indices in sorted(stratum, key=draw):
        split = max(lacking, key=lambda name: lacking[name])
        lacking[split] -= len(indices)
        chosen.append((indices, split))
    if len(chosen) > 1 and HOLDOUT not in {split for _, split in chosen}:
        smallest = min(range(len(chosen)), key=lambda at: len(chosen[at][0]))
        chosen[smallest] = (chosen[smallest][0], HOLDOUT)
    return chosen
