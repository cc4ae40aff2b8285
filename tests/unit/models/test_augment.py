import pytest
import torch
from torch import Tensor

from models.augment import BACKGROUND, augment, move


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int = 4, side: int = 16, channels: int = 1) -> Tensor:
    return torch.rand(count, channels, side, side, generator=seeded(9)) * 2 - 1


def motion(*rows: tuple[float, float, float]) -> Tensor:
    return torch.tensor([rows])


IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))


def test_probability_zero_changes_nothing() -> None:
    assert torch.allclose(augment(pictures(), 0.0, seeded()), pictures(), atol=1e-6)


def test_every_image_gets_its_own_variation() -> None:
    one = pictures(1).expand(8, -1, -1, -1)
    varied = augment(one, 0.8, seeded())
    assert len({tuple(image.flatten().tolist()) for image in varied}) == 8


def test_same_random_stream_same_variation() -> None:
    assert torch.equal(augment(pictures(), 0.5, seeded(3)), augment(pictures(), 0.5, seeded(3)))


def test_probability_is_of_each_image() -> None:
    varied = augment(pictures(), torch.tensor([0.0, 1.0, 0.0, 1.0]), seeded())
    is_same = [torch.allclose(a, b, atol=1e-6) for a, b in zip(varied, pictures(), strict=True)]
    assert is_same == [True, False, True, False]


def test_the_identity_moves_nothing() -> None:
    for side in (15, 16):
        torch.testing.assert_close(move(pictures(1, side), motion(*IDENTITY)), pictures(1, side))


def test_a_whole_shift_is_exact_and_background_comes_in() -> None:
    moved = move(pictures(1), motion((1.0, 0.0, 3.0), (0.0, 1.0, 0.0)))
    torch.testing.assert_close(moved[..., :13], pictures(1)[..., 3:])
    torch.testing.assert_close(moved[..., 13:], torch.full((1, 1, 16, 3), BACKGROUND))


def test_a_quarter_turn_is_that_of_torch() -> None:
    turned = move(pictures(1), motion((0.0, -1.0, 0.0), (1.0, 0.0, 0.0)))
    torch.testing.assert_close(turned, pictures(1).rot90(1, (2, 3)))


def test_sampling_agrees_with_torch_between_pixels() -> None:
    """`grid_sample`, which has no second derivative, is the witness of the values."""
    side = 16
    rows = ((0.9, 0.2, 1.3), (-0.1, 1.1, -0.7))
    theta = motion(*rows)
    theta[..., 2] *= 2 / side  # torch counts in half sides
    grid = torch.nn.functional.affine_grid(theta, [1, 1, side, side], align_corners=False)
    lifted = torch.nn.functional.grid_sample(
        pictures(1) - BACKGROUND, grid, align_corners=False, padding_mode="zeros"
    )
    torch.testing.assert_close(
        move(pictures(1), motion(*rows)), lifted + BACKGROUND, atol=1e-5, rtol=0
    )


def test_background_stays_background_under_gamma_and_contrast() -> None:
    black = torch.full((64, 1, 8, 8), BACKGROUND)
    shifted = augment(black, 0.5, seeded()).mean((1, 2, 3)) - BACKGROUND
    assert (shifted.abs() < 1e-6).float().mean() > 0.2  # neither brightness nor noise
    assert shifted.abs().max() < 1


def test_mask_moves_with_its_image_and_keeps_its_two_values() -> None:
    images = torch.full((32, 2, 16, 16), BACKGROUND)
    images[:, :, 4:12, 4:12] = 1
    varied = augment(images, 0.9, seeded())
    mask = varied[:, 1]
    assert mask.min() >= BACKGROUND - 1e-6
    assert mask.max() <= 1 + 1e-5
    inside = varied[:, 0][mask > 0.9].mean()
    outside = varied[:, 0][mask < -0.9].mean()
    assert inside > outside + 1


@pytest.mark.parametrize("probability", [0.4, 1.0])
def test_first_and_second_derivatives_are_right(probability: float) -> None:
    def varied(x: Tensor) -> Tensor:
        return augment(x, probability, seeded(4))

    # Strictly inside the range: the curve of gamma is clamped below black.
    x = torch.rand(2, 1, 5, 5, generator=seeded(), dtype=torch.float64) * 1.6 - 0.8
    x.requires_grad_()
    assert torch.autograd.gradcheck(varied, (x,))
    assert torch.autograd.gradgradcheck(varied, (x,))


def test_share_of_varied_images_grows_with_the_probability() -> None:
    shares = []
    for probability in (0.02, 0.1, 0.4):
        varied = augment(pictures(400, 8), probability, seeded())
        is_same = (varied - pictures(400, 8)).abs().amax((1, 2, 3)) < 1e-5
        shares.append(1 - is_same.float().mean().item())
    expected = [1 - (1 - p) ** 9 for p in (0.02, 0.1, 0.4)]
    # A step may draw next to nothing, such as a shift of no pixel.
    assert shares == pytest.approx(expected, abs=0.06)
