from collections import Counter

import numpy as np
import pytest

from models.evaluation.integrity import GeneratedPixels, RealPixels, check, gate
from models.evaluation.report import Light

IMAGES = np.random.default_rng(0).integers(0, 255, (40, 8, 8), dtype=np.uint8)
TRAINING, HOLDOUT, FRESH = IMAGES[:10], IMAGES[10:20], IMAGES[20:]


def lights(*more: np.ndarray, unusable: int = 0, unknown: int = 0) -> dict[str, Light]:
    """The verdicts on 20 fresh images and some more."""
    generated = GeneratedPixels(unusable=Counter(torn=unusable))
    for image in (*FRESH, *more):
        generated.add(image)
    checks = check(RealPixels.of(TRAINING, HOLDOUT), generated, unknown)
    return {item.id: item.verdict for item in checks if item.verdict is not Light.GREEN}


def test_fresh_images_are_green() -> None:
    assert lights() == {}
    checks = check(RealPixels.of(TRAINING, HOLDOUT), GeneratedPixels(), 0)
    assert gate(checks).verdict is Light.GREEN


def test_copies_are_red_even_mirrored() -> None:
    assert lights(TRAINING[3]) == {"exact_copies": Light.RED}
    assert lights(TRAINING[3][:, ::-1]) == {"mirrored_copies": Light.RED}


def test_unseen_images_among_the_generated_ones_are_said() -> None:
    assert lights(HOLDOUT[3]) == {"holdout_copies": Light.AMBER}
    assert lights(HOLDOUT[3][:, ::-1]) == {"holdout_copies": Light.AMBER}


def test_leakage_is_red() -> None:
    checks = check(RealPixels.of(TRAINING, [TRAINING[0], *HOLDOUT]), GeneratedPixels(), 0)
    assert gate(checks).verdict is Light.RED
    assert "not valid" in gate(checks).reason


@pytest.mark.parametrize(("count", "light"), [(1, Light.AMBER), (20, Light.RED)])
def test_repeated_images_are_counted(count: int, light: Light) -> None:
    assert lights(*[FRESH[0]] * count) == {"duplicates": light}


def test_faults_of_single_images_are_found() -> None:
    assert lights(np.zeros((8, 8), np.uint8)) == {"constant": Light.RED}
    assert lights(unusable=1) == {"unusable": Light.RED}
    assert lights(unknown=1) == {"unknown_labels": Light.AMBER}
    white = np.full((8, 8), 255, np.uint8)
    white[0, 0] = 0
    assert lights(white) == {"saturated": Light.AMBER}
