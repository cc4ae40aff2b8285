"""How sure a share is that was counted."""

from scipy.stats import beta

CONFIDENCE = 0.95


def clopper_pearson(count: int, total: int) -> tuple[float, float]:
    """Return the interval of 95 % of the share `count / total`; of nothing it is 0 to 1.

    Clopper and Pearson 1934, https://doi.org/10.1093/biomet/26.4.404: never too narrow.
    """
    tail = (1 - CONFIDENCE) / 2
    low = float(beta.ppf(tail, count, total - count + 1)) if count else 0.0
    high = float(beta.ppf(1 - tail, count + 1, total - count)) if count < total else 1.0
    return low, high
