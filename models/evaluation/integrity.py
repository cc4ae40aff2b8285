"""Gate a report: are the generated images whole, distinct, and not the training images."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.evaluation.report import Check, Light, Verdict
from models.metrics.pixels import pixel_digest

SATURATED_LEVEL = 255
UNUSABLE_SHARE = CONSTANT_SHARE = 0.01
DUPLICATE_SHARE = 0.05
SATURATED_EXCESS = 0.01

Pixels = NDArray[np.uint8]


@dataclass
class RealPixels:
    """The digests of the real images, plain and mirrored, of the splits that matter."""

    training: set[bytes] = field(default_factory=set)
    training_mirrored: set[bytes] = field(default_factory=set)
    holdout: set[bytes] = field(default_factory=set)
    holdout_mirrored: set[bytes] = field(default_factory=set)
    saturated_share: float = 0.0

    @classmethod
    def of(cls, training: Iterable[Pixels], holdout: Iterable[Pixels]) -> "RealPixels":
        """Digest two streams of (H, W) images."""
        real = cls()
        saturated: list[float] = []
        for image in training:
            real.training.add(pixel_digest(image))
            real.training_mirrored.add(pixel_digest(image[:, ::-1]))
            saturated.append(float((image >= SATURATED_LEVEL).mean()))
        for image in holdout:
            real.holdout.add(pixel_digest(image))
            real.holdout_mirrored.add(pixel_digest(image[:, ::-1]))
        real.saturated_share = float(np.mean(saturated)) if saturated else 0.0
        return real

    def is_unseen(self, digest: bytes) -> bool:
        """Whether it is that of a holdout image, plain or mirrored."""
        return digest in self.holdout or digest in self.holdout_mirrored


@dataclass
class GeneratedPixels:
    """What is remembered of the generated images while they stream by."""

    digests: Counter[bytes] = field(default_factory=Counter)
    constant_count: int = 0
    saturated_sum: float = 0.0
    unusable: Counter[str] = field(default_factory=Counter)

    def add(self, image: Pixels) -> None:
        """Take in one (H, W) image of the right size."""
        self.digests[pixel_digest(image)] += 1
        self.constant_count += int(image.min() == image.max())
        self.saturated_sum += float((image >= SATURATED_LEVEL).mean())


def check(real: RealPixels, generated: GeneratedPixels, unknown_labels: int) -> list[Check]:
    """Return every check; with no generated image the shares are 0."""
    count = generated.digests.total()
    unusable = generated.unusable.total()
    leaks = len(real.training & real.holdout)
    copies = sum(n for key, n in generated.digests.items() if key in real.training)
    mirrored = sum(n for key, n in generated.digests.items() if key in real.training_mirrored)
    seen = sum(n for key, n in generated.digests.items() if real.is_unseen(key))
    duplicates = count - len(generated.digests)
    saturated = generated.saturated_sum / max(1, count)
    why = ", ".join(f"{n} {reason}" for reason, n in generated.unusable.most_common(3))
    return [
        _zero(
            "leakage",
            leaks,
            "images are in training and holdout",
            ": the report is not valid",
        ),
        _zero("exact_copies", copies, "generated images equal a training image pixel by pixel"),
        _zero("mirrored_copies", mirrored, "generated images are mirrored training images"),
        Check(
            id="holdout_copies",
            value=seen,
            verdict=Light.AMBER if seen else Light.GREEN,
            reason=f"{seen or 'no'} generated images equal an unseen real image, or mirror it",
        ),
        _share("unusable", unusable, count + unusable, UNUSABLE_SHARE, f"files unusable: {why}"),
        _share("constant", generated.constant_count, count, CONSTANT_SHARE, "images are constant"),
        _share("duplicates", duplicates, count, DUPLICATE_SHARE, "images repeat another one"),
        Check(
            id="unknown_labels",
            value=unknown_labels,
            verdict=Light.AMBER if unknown_labels else Light.GREEN,
            reason=f"{unknown_labels} labels are not in the dataset",
        ),
        Check(
            id="saturated",
            value=saturated,
            verdict=Light.AMBER
            if saturated > 2 * real.saturated_share + SATURATED_EXCESS
            else Light.GREEN,
            reason=f"{saturated:.2%} of pixels are white; of real ones {real.saturated_share:.2%}",
        ),
    ]


def _zero(name: str, count: int, what: str, consequence: str = "") -> Check:
    light, reason = (
        (Light.RED, f"{count} {what}{consequence}") if count else (Light.GREEN, f"no {what}")
    )
    return Check(id=name, value=count, verdict=light, reason=reason)


def _share(name: str, count: int, total: int, limit: float, what: str) -> Check:
    share = count / max(1, total)
    light = Light.GREEN if count == 0 else Light.AMBER if share <= limit else Light.RED
    return Check(
        id=name, value=count, verdict=light, reason=f"{count} of {total} {what}".strip(": ")
    )


def gate(checks: list[Check]) -> Verdict:
    """Return the worst verdict, with the reasons of every check that has it."""
    for light in (Light.RED, Light.AMBER):
        reasons = [item.reason for item in checks if item.verdict is light]
        if reasons:
            return Verdict(verdict=light, reason="; ".join(reasons))
    return Verdict(
        verdict=Light.GREEN, reason="whole, distinct, and none equal to a training image"
    )
