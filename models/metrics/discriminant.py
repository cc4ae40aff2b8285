"""Ask a machine to tell two samples apart, and what it tells them by: a classifier's test.

Lopez-Paz and Oquab 2017, https://arxiv.org/abs/1610.06545, with a linear discriminant that is
shrunk towards the difference of the means. Whole groups are left out at once: were one image of a
group learnt from and another one asked about, samples of one distribution could be told apart.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
FOLDS = 5
SHRINKAGE = 0.1
"""Of the mean variance of a feature, added to that of every direction."""
_ROUNDING = 1e-12


def scores(
    x: Floats, y: Floats, x_groups: Rows, y_groups: Rows, random: np.random.Generator
) -> tuple[Floats, Floats]:
    """Return how much each of `(n, d)` and `(m, d)` looks like one of the second, out of fold.

    Both are scaled together, within the fold: scaling by one side alone makes samples of one
    distribution seem to differ.

    Raises:
        ValueError: when a side has fewer than two groups.
    """
    x_folds, y_folds = folds(x_groups, random), folds(y_groups, random)
    x_scores, y_scores = np.empty(len(x)), np.empty(len(y))
    for fold in range(FOLDS):
        x_out, y_out = x_folds == fold, y_folds == fold
        direction, middle = _discriminant(x[~x_out], y[~y_out])
        x_scores[x_out] = x[x_out] @ direction - middle
        y_scores[y_out] = y[y_out] @ direction - middle
    return x_scores, y_scores


def folds(groups: Rows, random: np.random.Generator) -> Rows:
    """Number the fold of each image `(n,)`: whole groups, the largest first, where least is yet.

    With fewer groups than folds some folds stay empty.

    Raises:
        ValueError: when there are fewer than two groups.
    """
    names, of_image = np.unique(groups, return_inverse=True)
    if len(names) < 2:  # noqa: PLR2004 - something to learn from, and something to ask about
        raise ValueError(f"{len(names)} groups, 2 are needed")
    sizes, filled = np.bincount(of_image), np.zeros(FOLDS)
    fold_of = np.empty(len(names), np.int64)
    shuffled = random.permutation(len(names))
    for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        fold_of[group] = filled.argmin()
        filled[fold_of[group]] += sizes[group]
    return np.asarray(fold_of[of_image])


def effect_sizes(x: Floats, y: Floats) -> Floats:
    """Return the difference of the means of each feature, in spreads within a side, `(d,)`.

    Positive where the second has more (Cohen 1988). Where neither side varies it is 0 if they are
    equal, and infinite with its sign if not.
    """
    spread = np.sqrt((x.var(0, ddof=1) + y.var(0, ddof=1)) / 2)
    difference = y.mean(0) - x.mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(difference == 0, 0.0, difference / spread)


def _discriminant(x: Floats, y: Floats) -> tuple[Floats, float]:
    """Return the direction from the first to the second, and where along it the middle lies."""
    both = np.concatenate([x, y])
    spread = both.std(0)
    factor = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 0)
    own, other = x * factor, y * factor
    means = own.mean(0), other.mean(0)
    difference = means[1] - means[0]
    within = np.concatenate([own - means[0], other - means[1]])
    direction = _shrunk_solve(within, difference)
    middle = float(direction @ (means[0] + means[1]) / 2)
    return direction * factor, middle


def _shrunk_solve(centred: Floats, target: Floats) -> Floats:
    """Return `(S + shrinkage I)^-1 target` for the covariance `S` of `(n, d)`."""
    count, width = centred.shape
    shrinkage = SHRINKAGE * float((centred**2).sum()) / (count * width) + _ROUNDING
    if width <= count:
        covariance = centred.T @ centred / count + shrinkage * np.eye(width)
        return np.asarray(np.linalg.solve(covariance, target))
    # By the images instead of the features, which are more (Woodbury).
    gram = centred @ centred.T + count * shrinkage * np.eye(count)
    inside = centred.T @ np.linalg.solve(gram, centred @ target)
    return np.asarray((target - inside) / shrinkage)
