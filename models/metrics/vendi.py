"""Say how many different images a sample amounts to: the Vendi score.

Friedman and Dieng 2023, https://arxiv.org/abs/2210.02410: the exponential of the entropy of the
eigenvalues of the similarities. Here the similarity is the cosine between features.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def vendi_score(features: Floats) -> float:
    """Return 1 for `(n, d)` that are all alike, and n for those that are all orthogonal.

    It grows with n, so compare samples of one size. An image whose features are all zero is like
    none, itself included, and counts for nothing; `nan` without any other.
    """
    lengths = np.linalg.norm(features, axis=1)
    unit = features[lengths > 0] / lengths[lengths > 0, None]
    if not len(unit):
        return float("nan")
    # The smaller of the two products has the same eigenvalues, but for zeros.
    product = unit @ unit.T if len(unit) <= unit.shape[1] else unit.T @ unit
    shares = np.linalg.eigvalsh(product / len(unit))
    known = shares[shares > np.finfo(float).eps]
    return float(np.exp(-(known * np.log(known)).sum()))
