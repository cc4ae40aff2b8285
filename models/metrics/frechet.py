"""Measure the Frechet distance of two Gaussians with the moments of two samples, exactly.

Dowson and Landau 1982, https://doi.org/10.1016/0047-259X(82)90077-X. Heusel et al. 2017 called it
FID in the features of one network; in any other space it is another number, never FID. It is biased
upwards, the more the fewer images, so it means something only beside that of as many real images,
and where there are at least twice as many images as dimensions.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

Floats = NDArray[np.float64]
DIMENSIONS = 64
IMAGES_PER_DIMENSION = 2
_AT_ONCE = 1024


def frechet_distance(x: Floats, y: Floats) -> float:
    """Return the squared distance of `(n, d)` and `(m, d)`.

    The trace of the root of a product of covariances is the nuclear norm of the cross-Gram matrix,
    `Tr sqrt(Sx Sy) = |Xc Yc^T|_* / sqrt((n - 1) (m - 1))`: no root of a matrix, whose rounding can
    be complex.

    Raises:
        ValueError: when a side has fewer than two images a dimension.
    """
    needed = IMAGES_PER_DIMENSION * x.shape[1]
    if min(len(x), len(y)) < needed:
        raise ValueError(f"{len(x)} and {len(y)} images in {x.shape[1]} dimensions; needs {needed}")
    own, other = _factor(x), _factor(y)
    root = np.linalg.svd(own @ other.T, compute_uv=False).sum()
    between = ((x.mean(0) - y.mean(0)) ** 2).sum()
    return float(between + (own**2).sum() + (other**2).sum() - 2 * root)


def _factor(x: Floats) -> Floats:
    """Return a triangle `(d, d)` whose `R^T R` is the covariance of `(n, d)`.

    The images times an orthogonal matrix: the singular values of a cross-Gram stay the same.
    """
    return np.asarray(np.linalg.qr(x - x.mean(0), mode="r") / np.sqrt(len(x) - 1))


def principal_axes(pooled: Floats, dimensions: int = DIMENSIONS) -> Floats:
    """Return the axes `(d, k)` along which `(N, d)` varies most, at most `dimensions` of them.

    Both sides must be among the images: axes of one alone would not show where the other differs.
    """
    width = pooled.shape[1]
    mean, scatter = pooled.mean(0), np.zeros((width, width))
    for start in range(0, len(pooled), _AT_ONCE):
        centred = pooled[start : start + _AT_ONCE] - mean
        scatter += centred.T @ centred
    first = max(width - dimensions, 0)
    _, axes = eigh(scatter, subset_by_index=(first, width - 1))
    return np.asarray(axes[:, ::-1])
