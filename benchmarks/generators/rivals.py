"""Build the arms that are not part of the service: written from the papers, for comparison alone.

FastGAN: Liu et al. 2021, https://arxiv.org/abs/2101.04775. R3GAN: Huang et al. 2024,
https://arxiv.org/abs/2501.05441, with dense convolutions and few channels.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, glu, interpolate, relu
from torch.nn.utils.parametrizations import spectral_norm

from models.augment import augment
from models.averages import Average
from models.data import slices
from models.data.slices import Slices
from models.networks.hybrid import Generator
from models.networks.layers import Excitation, PixelNorm, initialise, leak
from models.seeds import derive, stream
from models.trainees.optimiser import adam, adam_tensors, network_tensors

LATENT_SIZE, BATCH_SIZE = 192, 16
_CHANNELS = 32
_AUGMENTATION = 0.4
_LEARNING_RATE = 2e-4


class BatchNorm(nn.Module):
    """Batch norm in the place of `PixelNorm`, with what labels add left as it was."""

    def __init__(self, norm: PixelNorm) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(len(norm.gain), affine=False)
        self.gain, self.bias, self.of_label = norm.gain, norm.bias, norm.of_label

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Return `x` normed over the batch, for `labels` `(N,) int64`."""
        gain, bias = self.gain[None], self.bias[None]
        if self.of_label is not None:
            added = self.of_label[labels]
            gain, bias = gain + added[:, 0], bias + added[:, 1]
        result: Tensor = self.norm(x) * gain[..., None, None] + bias[..., None, None]
        return result


def use_batch_norm(generator: Generator) -> None:
    """Replace every pixel norm of a fresh generator."""
    for module in list(generator.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, PixelNorm):
                setattr(module, name, BatchNorm(child))


class _Residual(nn.Module):
    """Two 3x3 convolutions whose last starts at zero, as networks without a norm need it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.last = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.last(leak(self.first(leak(x))))
        return result


class _ResidualGenerator(nn.Module):
    def __init__(self, side_px: int, latent_size: int, labels: int) -> None:
        super().__init__()
        widths = _residual_widths(side_px)
        self.embedding = nn.Embedding(labels, 64)
        self.start = nn.Linear(latent_size + 64, widths[0] * 16)
        self.first = widths[0]
        self.stages = nn.ModuleList()
        for inside, outside in zip([widths[0], *widths[:-1]], widths, strict=True):
            self.stages.append(
                nn.Sequential(nn.Conv2d(inside, outside, 1), _Residual(outside), _Residual(outside))
            )
        self.paint = nn.Conv2d(widths[-1], 1, 1)

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        x = self.start(torch.cat([latents, self.embedding(labels)], 1)).view(-1, self.first, 4, 4)
        for number, stage in enumerate(self.stages):
            x = stage(interpolate(x, scale_factor=2, mode="bilinear") if number else x)
        painted: Tensor = self.paint(x)
        return painted.tanh()


class _ResidualDiscriminator(nn.Module):
    def __init__(self, side_px: int, labels: int) -> None:
        super().__init__()
        widths = _residual_widths(side_px)[::-1]
        self.read = nn.Conv2d(1, widths[0], 1)
        self.stages = nn.ModuleList()
        for inside, outside in zip(widths, [*widths[1:], widths[-1]], strict=True):
            self.stages.append(
                nn.Sequential(_Residual(inside), _Residual(inside), nn.Conv2d(inside, outside, 1))
            )
        self.judge = nn.Linear(widths[-1] * 16, 1)
        self.projection = nn.Parameter(torch.zeros(labels, widths[-1] * 16))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        x = self.read(images)
        for number, stage in enumerate(self.stages):
            x = stage(avg_pool2d(x, 2) if number else x)
        seen = x.flatten(1)
        projected = (seen * self.projection[labels]).sum(1, keepdim=True)
        logits: Tensor = self.judge(seen) + projected * seen.shape[1] ** -0.5
        return logits


def residual(side_px: int, latent_size: int, labels: int, seed: int) -> tuple[nn.Module, nn.Module]:
    """Return a fresh pair without norms, their last convolutions at zero."""
    networks = (
        _ResidualGenerator(side_px, latent_size, labels),
        _ResidualDiscriminator(side_px, labels),
    )
    random = stream(torch.device("cpu"), seed, 0, "residual")
    for network in networks:
        initialise(network, random)
        for module in network.modules():
            if isinstance(module, _Residual):
                nn.init.zeros_(module.last.weight)
    with torch.no_grad():
        common = torch.randn((1, 64), generator=random)
        networks[0].embedding.weight.copy_(common.expand(labels, -1))
    return networks


def _residual_widths(side_px: int) -> list[int]:
    """Return the channels from 4 px to `side_px`."""
    return [128, 128, 128, 64, 32, 16, 8][: side_px.bit_length() - 2]


class _FastGenerator(nn.Module):
    """The paper's: batch norm, one gated convolution a size, excitation."""

    def __init__(self, side_px: int) -> None:
        super().__init__()
        widths = {4: 16, 8: 8, 16: 4, 32: 2, 64: 2, 128: 1, 256: 0.5}
        wide = {side: int(width * _CHANNELS) for side, width in widths.items()}
        self.start = spectral_norm(nn.ConvTranspose2d(LATENT_SIZE, 2 * wide[4], 4, bias=False))
        self.start_norm = nn.BatchNorm2d(2 * wide[4])
        self.convolutions, self.norms = nn.ModuleDict(), nn.ModuleDict()
        self.excitations = nn.ModuleDict()
        side = 4
        while side < side_px:
            narrow, side = wide[side], side * 2
            self.convolutions[str(side)] = spectral_norm(
                nn.Conv2d(narrow, 2 * wide[side], 3, padding=1, bias=False)
            )
            self.norms[str(side)] = nn.BatchNorm2d(2 * wide[side])
            if side >= 64:
                self.excitations[str(side)] = Excitation(wide[side // 16], wide[side])
        self.paint = spectral_norm(nn.Conv2d(wide[side_px], 1, 3, padding=1))

    def forward(self, latents: Tensor) -> Tensor:
        maps = {4: glu(self.start_norm(self.start(latents[..., None, None])), dim=1)}
        for name, convolution in self.convolutions.items():
            side = int(name)
            grown = glu(
                self.norms[name](convolution(interpolate(maps[side // 2], scale_factor=2))), dim=1
            )
            if name in self.excitations:
                grown = self.excitations[name](maps[side // 16], grown)
            maps[side] = grown
        painted: Tensor = self.paint(maps[side])
        return painted.tanh()


class _FastDiscriminator(nn.Module):
    """The paper's: two ways down, spectral and batch norm, and a decoder of its 8 px maps."""

    def __init__(self, side_px: int) -> None:
        super().__init__()
        width = _CHANNELS
        layers: list[nn.Module] = [spectral_norm(nn.Conv2d(1, width, 3, padding=1)), _Leak()]
        self.blocks = nn.ModuleList()
        side = side_px
        while side > 8:
            wide = min(2 * width, 8 * _CHANNELS)
            self.blocks.append(_FastDown(width, wide))
            side, width = side // 2, wide
        self.read = nn.Sequential(*layers)
        self.judge = nn.Sequential(
            spectral_norm(nn.Conv2d(width, width, 1, bias=False)),
            nn.BatchNorm2d(width),
            _Leak(),
            spectral_norm(nn.Conv2d(width, 1, 4, bias=False)),
        )
        decoder: list[nn.Module] = []
        while side < min(side_px, 64):
            decoder += [
                nn.Upsample(scale_factor=2),
                nn.Conv2d(width, width // 2 * 2, 3, padding=1, bias=False),
                nn.BatchNorm2d(width // 2 * 2),
                nn.GLU(1),
            ]
            side, width = side * 2, width // 2
        self.decode = nn.Sequential(*decoder, nn.Conv2d(width, 1, 3, padding=1), nn.Tanh())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits `(N, 25)` and the 8 px maps."""
        x = self.read(images)
        for block in self.blocks:
            x = block(x)
        return self.judge(x).flatten(1), x


class _FastDown(nn.Module):
    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            spectral_norm(nn.Conv2d(inside, outside, 4, stride=2, padding=1, bias=False)),
            nn.BatchNorm2d(outside),
            _Leak(),
            spectral_norm(nn.Conv2d(outside, outside, 3, padding=1, bias=False)),
            nn.BatchNorm2d(outside),
            _Leak(),
        )
        self.direct = nn.Sequential(
            nn.AvgPool2d(2),
            spectral_norm(nn.Conv2d(inside, outside, 1, bias=False)),
            nn.BatchNorm2d(outside),
            _Leak(),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = (self.main(x) + self.direct(x)) / 2
        return result


class _Leak(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return leak(x)


class FastGANTrainee:
    """Trains the pair by the hinge loss with the reconstruction of real images."""

    def __init__(self, train: Slices, side_px: int, seed: int, device: torch.device) -> None:
        self.index, self.label = 0, "all"
        self.labels = train.names
        self.scores: tuple[str, ...] = ("generator_loss", "discriminator_loss")
        self.rows = torch.arange(len(train.labels))
        self.steps_total, self.steps_done = 1, 0
        self.versions: tuple[str, ...] = ("average",)
        self.released = "average"
        self._seed, self._device = seed, device
        self._random = torch.Generator(device)
        with torch.random.fork_rng():
            torch.manual_seed(derive(seed, "fastgan") % 2**63)
            self.generator = _FastGenerator(side_px).to(device)
            self.discriminator = _FastDiscriminator(side_px).to(device)
        self.average = Average(self.generator, 0.05)
        self._generator_adam, self._discriminator_adam = (
            adam(network, learning_rate=_LEARNING_RATE, betas=(0.5, 0.999))
            for network in (self.generator, self.discriminator)
        )

    def step(self, images: Tensor) -> Tensor:
        """See `Trainee`."""
        self._random.manual_seed(derive(self._seed, 0, "step", self.steps_done))
        picked = torch.randint(
            len(images), (BATCH_SIZE,), generator=self._random, device=self._device
        )
        real = slices.to_signal(images[picked])
        mirrored = torch.rand(BATCH_SIZE, generator=self._random, device=self._device) < 0.5
        real = torch.where(mirrored[:, None, None, None], real.flip(3), real)
        latents = torch.randn((BATCH_SIZE, LATENT_SIZE), generator=self._random)
        generated = self.generator(latents.to(self._device))

        seen = augment(real, _AUGMENTATION, self._random)
        real_logits, maps = self.discriminator(seen)
        decoded = self.discriminator.decode(maps)
        shown = interpolate(seen, decoded.shape[2:], mode="area")
        generated_logits, _ = self.discriminator(
            augment(generated.detach(), _AUGMENTATION, self._random)
        )
        judged = relu(1 - real_logits).mean() + relu(1 + generated_logits).mean()
        judged = judged + (decoded - shown).abs().mean()
        self._discriminator_adam.zero_grad()
        judged.backward()
        self._discriminator_adam.step()

        fooled = -self.discriminator(augment(generated, _AUGMENTATION, self._random))[0].mean()
        self._generator_adam.zero_grad()
        fooled.backward()
        self._generator_adam.step()
        self.steps_done += 1
        self.average.update(self.generator, BATCH_SIZE, self.steps_done * BATCH_SIZE)
        return torch.stack([fooled, judged]).detach().double()

    def draw(self, label: int, count: int, purpose: str) -> Tensor:
        """See `Trainee`; it knows no label."""
        del label
        random = stream(torch.device("cpu"), self._seed, 0, purpose)
        latents = torch.randn((count, LATENT_SIZE), generator=random)
        with torch.inference_mode():
            drawn = slices.to_planes(self.average.network(latents.to(self._device)))
        return drawn.cpu()

    def generator_tensors(self) -> dict[str, Tensor]:
        """See `Trainee`."""
        return network_tensors("0", self.average.network)

    def state_tensors(self) -> dict[str, Tensor]:
        """See `Trainee`."""
        return {
            **network_tensors("0.generator", self.generator),
            **network_tensors("0.discriminator", self.discriminator),
            **adam_tensors("0.generator_adam", self.generator, self._generator_adam),
            **adam_tensors("0.discriminator_adam", self.discriminator, self._discriminator_adam),
        }
