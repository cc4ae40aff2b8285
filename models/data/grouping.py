"""Find images that are nearly the same picture, so that no split separates them.

Patients are unknown in a folder of slices, and neighbouring slices of one series are almost equal:
a split by image would leak. Groups are clusters of perceptual hashes instead. They are clusters of
images, not patients; two patients may share a group and one patient may have several.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SAME_PICTURE_BITS = 12
"""Of 255: so near that it is one picture, and joined whatever the size of the group."""
MIN_CAP_IMAGES = 32
"""A group may always hold one series."""
_WORDS = 4
"""64-bit words of a hash."""
_FAR = 64 * _WORDS + 1


def group_images(
    fingerprints: NDArray[np.uint8],
    near_bits: int,
    max_share: float,
    keys: Sequence[str | None] | None = None,
) -> NDArray[np.int64]:
    """Return a group for each image, numbered by first appearance.

    A fingerprint, a row of (N, 32 k) bytes, is k 256-bit hashes: of the image as it is, then of the
    image turned and mirrored; two images are as far apart as the nearest of these. `keys` say who
    belongs together (a patient, a volume): they are joined first, and two of them only where they
    show the same picture.

    Single linkage joins images at most `near_bits` apart. It chains: on real slices one cluster
    swallows a quarter of the data before neighbours are together. So the links of the minimum
    spanning tree are taken from the nearest up, and one is refused when the group would hold more
    than `max_share` of the images (and more than one series). The groups depend on the order of
    the input only through ties; give it in a canonical order.
    """
    keys = keys or [None] * len(fingerprints)
    count = len(fingerprints)
    cap = max(MIN_CAP_IMAGES, int(max_share * count))
    parent = list(range(count))
    sizes = [1] * count

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    def join(first: int, second: int) -> None:
        a, b = root(first), root(second)
        if a != b:
            parent[b] = a
            sizes[a] += sizes[b]

    first_of: dict[str, int] = {}
    for node, key in enumerate(keys):
        if key is not None:
            join(first_of.setdefault(key, node), node)
    for bits, first, second in sorted(_spanning_tree(fingerprints)):
        if bits > near_bits:
            break
        has_keys = keys[first] is not None and keys[second] is not None
        is_small = sizes[root(first)] + sizes[root(second)] <= cap
        if bits <= SAME_PICTURE_BITS or (is_small and not has_keys):
            join(first, second)
    return number_by_appearance([root(node) for node in range(count)])


def number_by_appearance(values: Sequence[int]) -> NDArray[np.int64]:
    """Renumber `values` as 0, 1, ... in the order in which they first appear."""
    numbers: dict[int, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)


def distances_across(
    fingerprints: NDArray[np.uint8], is_first: Sequence[bool] | NDArray[np.bool_]
) -> NDArray[np.int32]:
    """Return, for each image that is not of the first side, the bits to the nearest that is."""
    words, variants = _words(fingerprints)
    chosen = np.asarray(is_first, np.bool_)
    first = np.ascontiguousarray(words[:, chosen])
    return np.array(
        [_distances(first, variants[:, :, node]).min() for node in np.flatnonzero(~chosen)]
        if chosen.any()
        else [],
        np.int32,
    )


def _words(fingerprints: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the hashes as they are, (4, N), and all variants of each, (variants, 4, N)."""
    words = fingerprints.view(np.uint64).reshape(len(fingerprints), -1, _WORDS)
    variants = np.ascontiguousarray(words.transpose(1, 2, 0))
    return variants[0], variants


def _distances(words: NDArray[np.uint64], variants: NDArray[np.uint64]) -> NDArray[np.int32]:
    """Return the bits from each of (4, N) to the nearest of (variants, 4)."""
    nearest = np.full(words.shape[1], _FAR, np.uint16)
    for variant in variants:
        bits = np.bitwise_count(words[0] ^ variant[0]).astype(np.uint16)
        for row in range(1, _WORDS):
            bits += np.bitwise_count(words[row] ^ variant[row])
        np.minimum(nearest, bits, out=nearest)
    return nearest.astype(np.int32)


def _spanning_tree(fingerprints: NDArray[np.uint8]) -> list[tuple[int, int, int]]:
    """Return the `(bits, a, b)` links of a minimum spanning tree by Hamming distance.

    Prim's algorithm on the complete graph: O(N^2) time and O(N) memory, whatever the data.
    """
    count = len(fingerprints)
    words, variants = _words(fingerprints)
    nearest = np.full(count, _FAR, np.int32)  # bits to the tree; `_FAR` + 1 marks its own nodes
    link = np.zeros(count, dtype=np.int64)
    is_outside = np.ones(count, dtype=np.bool_)
    links, node = [], 0
    for _ in range(count - 1):
        is_outside[node] = False
        nearest[node] = _FAR + 1
        bits = _distances(words, variants[:, :, node])
        is_nearer = (bits < nearest) & is_outside
        nearest[is_nearer] = bits[is_nearer]
        link[is_nearer] = node
        node = int(np.argmin(nearest))
        links.append((int(nearest[node]), int(link[node]), node))
    return links
