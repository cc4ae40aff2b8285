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


def group_images(
    fingerprints: Sequence[bytes], near_bits: int, max_share: float
) -> NDArray[np.int64]:
    """Return a group for each 256-bit fingerprint, numbered by first appearance.

    Single linkage joins images at most `near_bits` apart. It chains: on real slices one cluster
    swallows a quarter of the data before neighbours are together. So the links of the minimum
    spanning tree are taken from the nearest up, and one is refused when the group would hold more
    than `max_share` of the images (and more than one series). The groups depend on the order of
    the input only through ties; give it in a canonical order.
    """
    count = len(fingerprints)
    cap = max(MIN_CAP_IMAGES, int(max_share * count))
    parent = list(range(count))
    sizes = [1] * count

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for bits, first, second in sorted(_spanning_tree(fingerprints)):
        if bits > near_bits:
            break
        a, b = root(first), root(second)
        if sizes[a] + sizes[b] <= cap or bits <= SAME_PICTURE_BITS:
            parent[b] = a
            sizes[a] += sizes[b]
    return number_by_appearance([root(node) for node in range(count)])


def number_by_appearance(values: Sequence[int]) -> NDArray[np.int64]:
    """Renumber `values` as 0, 1, ... in the order in which they first appear."""
    numbers: dict[int, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)


def _spanning_tree(fingerprints: Sequence[bytes]) -> list[tuple[int, int, int]]:
    """Return the `(bits, a, b)` links of a minimum spanning tree by Hamming distance.

    Prim's algorithm on the complete graph: O(N^2) time and O(N) memory, whatever the data.
    """
    count = len(fingerprints)
    words = np.frombuffer(b"".join(fingerprints), np.uint64).reshape(count, -1).T.copy()  # (4, N)
    far = np.int32(8 * words.shape[0] * words.itemsize + 1)
    nearest = np.full(count, far)  # bits to the tree; `far` + 1 marks its own nodes
    link = np.zeros(count, dtype=np.int64)
    is_outside = np.ones(count, dtype=np.bool_)
    links, node = [], 0
    for _ in range(count - 1):
        is_outside[node] = False
        nearest[node] = far + 1
        bits = np.zeros(count, dtype=np.int32)
        for word in words:
            bits += np.bitwise_count(word ^ word[node])
        is_nearer = (bits < nearest) & is_outside
        nearest[is_nearer] = bits[is_nearer]
        link[is_nearer] = node
        node = int(np.argmin(nearest))
        links.append((int(nearest[node]), int(link[node]), node))
    return links
