"""Look for near copies fast, and find exactly what `models.metrics.copies.closest` would.

Most training images cannot be close enough, and bounds say so before anything is shifted. In the
frequency domain a shift turns phases alone, so the product of the magnitudes bounds the correlation
at every shift; then low frequencies are correlated at each shift, and what the others could add is
bounded by their norms (Cauchy and Schwarz). Only what passes both is correlated in full.
"""

import math
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.metrics.copies import QUANTILE, SHIFT_PX, SIDE_PX, normalised

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_THRESHOLD = 0.95
"""Where there is no unseen image to set it; a noisy, shifted copy correlates more than this."""

_HALF = SIDE_PX // 2 + 1  # columns of a real transform
_LOW = (6, 12)
"""Frequencies up to which a pair is correlated at first, in cycles an image."""
_ROUNDING = 1e-5
_BATCH, _PAIRS_LOW, _PAIRS = 16, 2048, 64
_LIKELY = 4
_MANY = 1 / 8
"""Share of the pairs from which on it is faster to bound all of them at once than each of these."""
_PART = 4096


class Images(Protocol):
    """Images `(m, S, S) uint8`, or what reads them when they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> NDArray[np.uint8]: ...


class CopySearch:
    """The training images, transformed: 30 kB of memory each, or each time anew."""

    def __init__(self, training: Images, *, is_kept: bool = True) -> None:
        """Take `(m, S, S) uint8`, at least one; if they are not kept, 4,096 are held at a time."""
        self._training = training
        is_kept = is_kept or len(training) <= _PART
        self._kept = list(self._transformed()) if is_kept else None

    def _parts(self) -> "Iterator[_Part]":
        return iter(self._kept) if self._kept is not None else self._transformed()

    def _transformed(self) -> "Iterator[_Part]":
        for first in range(0, len(self._training), _PART):
            yield _Part(self._training[first : first + _PART])

    def above(self, images: NDArray[np.uint8], floor: float) -> NDArray[np.float64]:
        """Return for each of `(n, S, S)` its correlation with the closest training image.

        What is not above `floor`, which saves the time, is given as `floor`: `(n,)` in
        [`floor`, 1].
        """
        found = np.full(len(images), floor)
        for part in self._parts():
            found = np.maximum(found, part.above(images, floor))
        return found

    def threshold(self, unseen: NDArray[np.uint8]) -> float:
        """Return the correlation that one in a hundred of `(n, S, S)` unseen real images exceeds.

        Only the largest correlations matter for it. Without any image it is `DEFAULT_THRESHOLD`.
        """
        return self.thresholds(unseen)[0]

    def thresholds(self, unseen: NDArray[np.uint8]) -> tuple[float, float]:
        """Return `threshold`, and the correlation that none of the images exceeds."""
        if not len(unseen):
            return DEFAULT_THRESHOLD, DEFAULT_THRESHOLD
        needed = len(unseen) - int(QUANTILE * (len(unseen) - 1))
        found = self._largest(unseen, needed)
        return float(np.quantile(found, QUANTILE)), float(found.max())

    def closest(
        self, images: NDArray[np.uint8], count: int, known: NDArray[np.float64] | None = None
    ) -> NDArray[np.int64]:
        """Return the rows of the `count` images that are closest to any training image, in order.

        There are fewer when `(n, S, S)` are. What `above` has returned for the same images is
        `known`, and saves the search when enough of them are above its floor.
        """
        count = min(count, len(images))
        if not count:
            return np.empty(0, np.int64)
        if known is None or int((known > known.min()).sum()) < count:
            known = self._largest(images, count)
        return np.argsort(-known, kind="stable")[:count]

    def _largest(self, images: NDArray[np.uint8], needed: int) -> NDArray[np.float64]:
        """Return the correlations `(n,)`, of which only the `needed` largest are exact.

        The others are too small by an unknown amount, and none is among the largest.
        """
        found = np.full(len(images), -1.0)
        for part in self._parts():
            found = part.largest(images, needed, found)
        return found


class _Part:
    """Some training images, transformed."""

    def __init__(self, training: NDArray[np.uint8]) -> None:
        self._spectra = _spectra(normalised(training))
        self._magnitudes = self._spectra.abs().flatten(1)
        self._low = [_Low(self._spectra, most) for most in _LOW]

    def above(self, images: NDArray[np.uint8], floor: float) -> NDArray[np.float64]:
        """Return the correlation of each with the closest of these; -1 if not above `floor`."""
        starts = range(0, len(images), _BATCH)
        found = [self._above(images[one : one + _BATCH], floor) for one in starts]
        return np.concatenate(found) if found else np.empty(0)

    def largest(
        self, images: NDArray[np.uint8], needed: int, known: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the correlations, of which only the `needed` largest are exact.

        None is smaller than what is `known` of it, `(n,)`, by other training images.
        """
        starts = range(0, len(images), _BATCH)
        likely = np.concatenate([self._likely(images[one : one + _BATCH]) for one in starts])
        values: NDArray[np.float64] = np.maximum(known, likely)
        for one in starts:
            floor = float(np.partition(values, -needed)[-needed])
            part = slice(one, one + _BATCH)
            values[part] = np.maximum(values[part], self._above(images[part], floor))
        return values

    def _above(self, images: NDArray[np.uint8], floor: float) -> NDArray[np.float64]:
        """Return the correlations `(n,)` of a batch; -1 where no pair passes the bounds."""
        own, least = _both_ways(images), floor - _ROUNDING
        passes = own.abs().flatten(1) @ self._magnitudes.T > least  # (2n, m)
        if passes.float().mean() > _MANY:
            passes &= _Low(own, _LOW[0]).bounds(self._low[0]) > least
        i, j = passes.nonzero(as_tuple=True)
        for low, most in zip(self._low, _LOW, strict=True):
            may_be = _Low(own, most).bound(i, low, j) > least
            i, j = i[may_be], j[may_be]
        return self._best(own, i, j)

    def _likely(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the best correlation with the few that magnitudes favour: at most the true one."""
        own = _both_ways(images)
        bounds = own.abs().flatten(1) @ self._magnitudes.T
        j = bounds.topk(min(_LIKELY, bounds.shape[1]), dim=1).indices
        i = torch.arange(len(own))[:, None].expand_as(j)
        return self._best(own, i.flatten(), j.flatten())

    def _best(self, own: Tensor, i: Tensor, j: Tensor) -> NDArray[np.float64]:
        """Correlate pairs of rows at all shifts; return the best of each image, either way."""
        count = len(own) // 2
        best = torch.full((count,), -1.0)
        for first in range(0, len(i), _PAIRS):
            part = slice(first, first + _PAIRS)
            found = _correlate(own[i[part]], self._spectra[j[part]])
            best.scatter_reduce_(0, i[part] % count, found, "amax")
        correlations: NDArray[np.float64] = best.double().numpy()
        return correlations


class _Low:
    """The low frequencies of some images, and the norm of all others."""

    def __init__(self, spectra: Tensor, most: int) -> None:
        self._rows = rows = [*range(most + 1), *range(-most, 0)]
        self._inside = spectra[:, rows, : most + 1].flatten(1)  # (n, k) complex64
        self._outside = (1 - self._inside.abs().square().sum(1)).clamp_min(0).sqrt()
        turns = _DOWN[:, rows][:, None, :, None] * _ACROSS[: most + 1].T[None, :, None]
        flat = turns.reshape(-1, self._inside.shape[1])  # (shifts, k)
        self._turns = torch.cat([flat.real, -flat.imag], 1).T.contiguous()

    def bound(self, i: Tensor, other: "_Low", j: Tensor) -> Tensor:
        """Return what the correlation of each pair of rows is at most, over all shifts."""
        found = torch.empty(len(i))
        for first in range(0, len(i), _PAIRS_LOW):
            part = slice(first, first + _PAIRS_LOW)
            product = self._inside[i[part]] * other._inside[j[part]].conj()  # noqa: SLF001 - its own kind
            at_shifts = torch.cat([product.real, product.imag], 1) @ self._turns
            rest = self._outside[i[part]] * other._outside[j[part]]  # noqa: SLF001
            found[part] = at_shifts.amax(1) + rest
        return found

    def bounds(self, other: "_Low") -> Tensor:
        """Return the same of each row with each of the `m` rows of `other`, `(n, m)`.

        To shift down first and then across takes a quarter of the products of both at once.
        """
        own, theirs = self._half_planes(), other._half_planes()  # noqa: SLF001 - its own kind
        shifts = len(_SHIFTS)
        turned = (own[:, None] * _DOWN[:, self._rows, None]).permute(0, 3, 1, 2)
        down = torch.stack(  # (n, columns, 2 x 13, 2 x rows): real and imaginary parts
            [
                torch.cat([turned.real, turned.imag], 3),
                torch.cat([turned.imag, -turned.real], 3),
            ],
            2,
        ).flatten(2, 3)
        parts = torch.cat([theirs.real, theirs.imag], 1).permute(2, 1, 0).contiguous()
        turns = _ACROSS[: own.shape[2]]
        across = torch.stack([turns.real, -turns.imag], 1).flatten(0, 1).T  # (13, columns x 2)
        found = self._outside[:, None] * other._outside  # noqa: SLF001
        for row, one in enumerate(down):
            at_down = torch.bmm(one, parts).view(-1, shifts * len(theirs))
            found[row] += (across @ at_down).view(shifts**2, -1).amax(0)
        return found

    def _half_planes(self) -> Tensor:
        """Return the low frequencies `(n, rows, columns) complex64`."""
        return self._inside.view(len(self._inside), len(self._rows), -1)


_SHIFTS = torch.arange(-SHIFT_PX, SHIFT_PX + 1)
_DOWN = torch.exp(2j * math.pi * _SHIFTS[:, None] * torch.fft.fftfreq(SIDE_PX))  # (13, 64)
_ACROSS = torch.exp(2j * math.pi * torch.arange(_HALF)[:, None] / SIDE_PX * _SHIFTS)  # (33, 13)
# Complex products as real ones, which matrix multiplication is fast at.
_DOWN_REAL = torch.cat([_DOWN.real, -_DOWN.imag], 1)  # (13, 128)
_ACROSS_REAL = torch.stack(
    [torch.cat([_ACROSS.real, _ACROSS.imag], 1), torch.cat([-_ACROSS.imag, _ACROSS.real], 1)], 1
).flatten(0, 1)  # (66, 26): real and imaginary parts take turns in the rows


def _correlate(own: Tensor, theirs: Tensor) -> Tensor:
    """Return the largest correlation `(p,)` of pairs of spectra `(p, 64, 33)` over the shifts."""
    product = torch.view_as_real((own * theirs.conj()).resolve_conj())  # (p, 64, 33, 2)
    columns = product.reshape(-1, 2 * _HALF) @ _ACROSS_REAL
    parts = columns.view(-1, SIDE_PX, 2, len(_SHIFTS)).transpose(1, 2)
    surface = _DOWN_REAL @ parts.reshape(-1, 2 * SIDE_PX, len(_SHIFTS))  # (p, 13, 13)
    best: Tensor = surface.flatten(1).amax(1)
    return best


def _both_ways(images: NDArray[np.uint8]) -> Tensor:
    """Return the spectra of the images, and then of the mirrored ones, `(2n, 64, 33)`."""
    unit = normalised(images)
    return _spectra(torch.cat([unit, unit.flip(2)]))


def _spectra(unit: Tensor) -> Tensor:
    """Return half spectra `(n, 64, 33) complex64` whose inner products are those of the images."""
    weights = torch.full((_HALF,), 2.0)
    weights[0] = weights[-1] = 1.0  # The other columns stand for their mirror images too.
    spectra: Tensor = torch.fft.rfft2(unit) * (weights.sqrt() / SIDE_PX)
    return spectra
