"""Hold one label's generator and discriminator while they are trained."""

import torch
from torch import Tensor

from models.augment import augment
from models.config import DCGANConfig
from models.data import slices
from models.losses import discriminator_loss, generator_loss
from models.networks import dcgan
from models.seeds import derive, stream
from models.trainees.optimiser import adam, adam_tensors, network_tensors

SCORES = ("generator_loss", "discriminator_loss", "real_score", "fake_score")
"""What one step measures; a score is the probability of being real, by the discriminator."""


DRAWN_TOGETHER = 64


class BaselineTrainee:
    """The networks, optimisers and data order of one label; see `Trainee`."""

    def __init__(
        self,
        config: DCGANConfig,
        seed: int,
        index: int,
        label: str,
        rows: Tensor,
        device: torch.device,
    ) -> None:
        """Initialise the networks of `label`; `rows` `(n,) int64` are its training images."""
        self.index = index
        self.label = label
        self.labels: tuple[str, ...] = (label,)
        self.scores: tuple[str, ...] = SCORES
        self.rows = rows
        self.versions: tuple[str, ...] = ("live",)
        self.released = "live"
        self.steps_total = 0
        self.steps_done = 0
        self._config = config
        self._seed = seed
        self._device = device
        self._epoch = -1
        self._permutation = rows
        self._random = torch.Generator(device)
        initial = stream(torch.device("cpu"), seed, index, "weights")
        self.generator = dcgan.Generator(
            config.image_size, config.latent_size, config.generator_channels
        )
        self.discriminator = dcgan.Discriminator(
            config.image_size, config.discriminator_channels, config.dropout, self._random
        )
        for network in (self.generator, self.discriminator):
            dcgan.initialise(network, initial)
            # 16 % faster than the default layout on a CPU.
            network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        betas = (config.beta1, config.beta2)
        self._generator_adam = adam(self.generator, learning_rate=config.learning_rate, betas=betas)
        self._discriminator_adam = adam(
            self.discriminator, learning_rate=config.learning_rate, betas=betas
        )

    def step(self, images: Tensor) -> Tensor:
        """Train on the next batch of `images` `(N, 1, S, S) uint8`; return `SCORES`, float64."""
        config, count = self._config, self._config.batch_size
        self._random.manual_seed(derive(self._seed, self.index, "step", self.steps_done))
        real = slices.to_signal(images[self.next_rows().to(self._device)])
        latents = torch.randn(
            (count, config.latent_size), generator=self._random, device=self._device
        )
        generated = self.generator(latents)

        # The discriminator learns to tell this batch from that one.
        real_logits = self._judge(real)
        generated_logits = self._judge(generated.detach())
        judged = discriminator_loss(real_logits, generated_logits)
        self._discriminator_adam.zero_grad()
        torch.autograd.backward(judged)
        self._discriminator_adam.step()

        # The generator learns from the discriminator's new opinion of the same images.
        self.discriminator.requires_grad_(requires_grad=False)
        fooled = generator_loss(self._judge(generated))
        self._generator_adam.zero_grad()
        torch.autograd.backward(fooled)
        self._generator_adam.step()
        self.discriminator.requires_grad_(requires_grad=True)

        self.steps_done += 1
        scores = (real_logits.sigmoid().mean(), generated_logits.sigmoid().mean())
        return torch.stack([fooled, judged, *scores]).detach().double()

    def next_rows(self) -> Tensor:
        """Return the rows `(batch,) int64` of the next batch.

        Each epoch is a fresh permutation; a batch goes on into the next one where an epoch ends.
        """
        first = self.steps_done * self._config.batch_size
        last = first + self._config.batch_size
        parts = []
        while first < last:
            epoch, offset = divmod(first, len(self.rows))
            parts.append(self._rows_of_epoch(epoch)[offset : offset + last - first])
            first += len(parts[-1])
        return torch.cat(parts)

    def draw(self, label: int, count: int, purpose: str) -> Tensor:
        """Return images `(count, 1, S, S) uint8` of the one label; latents go by `purpose`."""
        assert label == 0, "a trainee of one label"
        random = stream(torch.device("cpu"), self._seed, self.index, purpose)
        latents = torch.randn((count, self._config.latent_size), generator=random)
        self.generator.eval()
        with torch.inference_mode():
            batches = [
                slices.to_planes(self.generator(batch.to(self._device))).cpu()
                for batch in torch.split(latents, DRAWN_TOGETHER)
            ]
        self.generator.train()
        return torch.cat(batches)

    def generator_tensors(self) -> dict[str, Tensor]:
        """Return the live tensors of the generator, keyed by index and name."""
        return network_tensors(str(self.index), self.generator)

    def state_tensors(self) -> dict[str, Tensor]:
        """Return every other live tensor of the state, keyed by index, part and name."""
        own = str(self.index)
        return {
            **network_tensors(f"{own}.discriminator", self.discriminator),
            **adam_tensors(f"{own}.generator_adam", self.generator, self._generator_adam),
            **adam_tensors(
                f"{own}.discriminator_adam", self.discriminator, self._discriminator_adam
            ),
        }

    def _judge(self, images: Tensor) -> Tensor:
        """Return the logits of images that are varied first, where that is asked for."""
        if self._config.augmentation:
            images = augment(images, self._config.augmentation, self._random)
        logits: Tensor = self.discriminator(images)
        return logits

    def _rows_of_epoch(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            random = stream(torch.device("cpu"), self._seed, self.index, "epoch", epoch)
            self._permutation = self.rows[torch.randperm(len(self.rows), generator=random)]
            self._epoch = epoch
        return self._permutation
