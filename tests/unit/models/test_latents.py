import numpy as np
import pytest

from models import latents


def test_latents_are_standard_normal_times_the_temperature() -> None:
    drawn = np.stack([latents.block(4, "none", number, 0) for number in range(400)])
    assert drawn.mean() == pytest.approx(0, abs=0.03)
    assert drawn.std() == pytest.approx(1, abs=0.03)
    assert np.array_equal(latents.block(4, "none", 7, 0, 0.5), drawn[7] * np.float32(0.5))
