"""Whether a checkpoint may be used: the rule, and that it tells the broken from the good."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter

from models.data.slices import Slices
from models.exchange import Reason
from models.live import Live
from models.release import judge

GOOD = {
    "all/kid": 1.0,
    "all/kid_noise": 4.0,
    "all/kid_floor": 0.5,
    "all/recall": 0.3,
}
SIDE_PX = 64


def passed(**changes: float) -> bool:
    judged = judge(GOOD | {f"all/{name}": value for name, value in changes.items()})
    assert judged is not None
    return judged.is_passed


def test_a_checkpoint_passes_up_to_half_the_distance_of_noise() -> None:
    assert passed()
    assert passed(kid=2.0)
    assert not passed(kid=2.01)


def test_what_is_about_as_near_as_training_images_passes_whatever_noise_does() -> None:
    assert passed(kid=0.75, kid_noise=0.1)
    assert not passed(kid=0.76, kid_noise=0.1)


def test_few_patients_do_not_make_the_rule_lenient() -> None:
    assert not passed(kid=3.0, kid_floor_high=18.9)


def test_images_that_are_all_alike_do_not_pass_though_they_are_near() -> None:
    judged = judge(GOOD | {"all/recall": 0.049})
    assert judged is not None
    assert not judged.is_passed
    assert judged.reasons == ("the images are too much alike: recall 0.049, below 0.05",)


@pytest.mark.parametrize(
    ("name", "good", "bad", "words"),
    [
        ("high_frequency_db", 6.0, 6.1, "+6.1 dB (a mesh or noise lies over them)"),
        ("high_frequency_db", -6.0, -9.1, "-9.1 dB (they are blurred or flat)"),
        ("label_contrast", 0.25, 0.24, "the labels are drawn alike: they are 0.24 times"),
        ("label_contrast", 1.0, -0.3, "the labels are drawn alike: they are 0.00 times"),
    ],
)
def test_what_the_distance_does_not_see_is_seen(
    name: str, good: float, bad: float, words: str
) -> None:
    assert passed(**{name: good})
    judged = judge(GOOD | {f"all/{name}": bad})
    assert judged is not None
    assert not judged.is_passed
    assert words in judged.reasons[0]


def test_every_reason_can_leave_with_the_generator() -> None:
    worst = {"kid": 9.0, "recall": 0.0, "high_frequency_db": -9.0, "label_contrast": -0.1}
    for sign in (1, -1):
        values = {f"all/{name}": value for name, value in worst.items()}
        values["all/high_frequency_db"] *= sign
        judged = judge(GOOD | values)
        assert judged is not None
        assert len(judged.reasons) == 4
        reason = TypeAdapter(Reason)
        assert [reason.validate_python(one) for one in judged.reasons] == list(judged.reasons)


def test_older_checkpoints_are_judged_by_what_was_measured_of_them() -> None:
    judged = judge(GOOD)
    assert judged is not None
    assert judged.is_passed
    assert judged.label_contrast is None


def test_every_reason_is_given_and_how_far_above_real_images_it_is() -> None:
    judged = judge(GOOD | {"all/kid": 3.0, "all/recall": 0.0})
    assert judged is not None
    assert len(judged.reasons) == 2
    assert "KID 3, and more than 2 is refused" in judged.reasons[0]
    assert judged.floor_ratio == 6.0


def test_a_floor_that_is_not_above_zero_has_no_ratio() -> None:
    judged = judge(GOOD | {"all/kid_floor": -0.01})
    assert judged is not None
    assert judged.floor_ratio is None


@pytest.mark.parametrize("name", GOOD)
def test_what_was_not_measured_is_not_judged(name: str) -> None:
    assert judge({key: value for key, value in GOOD.items() if key != name}) is None


def heads(count: int, seed: int) -> NDArray[np.uint8]:
    """Ellipses of a size and a grey of their own, with a bright spot: `(count, 64, 64)`."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX] - (SIDE_PX - 1) / 2
    wide, high = random.uniform(18, 28, (2, count, 1, 1))
    inside = (x / wide) ** 2 + (y / high) ** 2 < 1
    at_x, at_y = random.uniform(-12, 12, (2, count, 1, 1))
    spot = (x - at_x) ** 2 + (y - at_y) ** 2 < random.uniform(9, 36, (count, 1, 1))
    grey = random.uniform(80, 140, (count, 1, 1)) + 3 * random.normal(
        size=(count, SIDE_PX, SIDE_PX)
    )
    return np.where(inside, np.where(spot, 220, grey), 2).clip(0, 255).astype(np.uint8)


def slices(images: NDArray[np.uint8]) -> Slices:
    count = len(images)
    labels, groups = torch.zeros(count, dtype=torch.int64), torch.arange(count)
    return Slices(torch.from_numpy(images[:, None]), labels, groups, ("a",), "d")


def blurred(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    signal = torch.from_numpy(images[:, None]).float()
    return torch.nn.functional.avg_pool2d(signal, 9, 1, 4).to(torch.uint8).numpy()[:, 0]


@pytest.fixture(scope="module")
def live() -> Live:
    return Live(slices(heads(200, 0)), slices(heads(60, 1)), torch.device("cpu"), 0)


@pytest.mark.parametrize(
    ("name", "passes"),
    [("real", True), ("blurred", False), ("noisy", False), ("one", False), ("grey", False)],
)
def test_the_rule_passes_real_images_and_no_broken_generator(
    live: Live,
    name: str,
    passes: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    real = heads(240, 2)
    noise = np.random.default_rng(3).normal(0, 40, real.shape)
    drawn = {
        "real": real,
        "blurred": blurred(real),
        "noisy": (real + noise).clip(0, 255).astype(np.uint8),
        "one": np.repeat(real[:1], len(real), 0),
        "grey": np.full_like(real, 90),
    }[name]
    judged = judge(live.measure(lambda _label, count: drawn[:count, None], ("a",)))
    assert judged is not None
    assert judged.is_passed is passes, judged
