import pytest
import torch

from models import device
from models.run_folder import UserError


def test_auto_is_the_cpu_where_there_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.choose("auto", 1).type == "cpu"
    assert torch.get_num_threads() == 1


def test_torch_takes_no_more_threads_than_there_are_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.cores.usable", lambda: 1)
    torch.set_num_threads(2)
    device.choose("cpu", 0)
    assert torch.get_num_threads() == 1


def test_an_allocator_without_options_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _name: object())
    assert device.choose("cpu", 0).type == "cpu"


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_cuda_is_taken_where_it_exists(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device.choose(name, 0).type == "cuda"


def test_asking_for_absent_cuda_is_the_users_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA"):
        device.choose("cuda", 0)


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(ValueError, match="tpu"):
        device.choose("tpu", 0)
