import torch

from models.seeds import derive, stream


def test_every_part_of_the_path_matters() -> None:
    seeds = {
        derive(0),
        derive(1),
        derive(0, 1),
        derive(0, "1"),
        derive(0, "1", 2),
        derive(0, "12"),
        derive(0, 1, "2"),
    }
    assert len(seeds) == 7


def test_a_stream_starts_over_each_time() -> None:
    first, second = (
        torch.rand(3, generator=stream(torch.device("cpu"), 5, "noise")) for _ in range(2)
    )
    assert torch.equal(first, second)
