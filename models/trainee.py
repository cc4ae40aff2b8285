"""Hold one label's generator and discriminator while they are trained."""

import torch
from torch import Tensor, nn

from models.config import TrainingConfig
from models.data import slices
from models.losses import discriminator_loss, generator_loss
from models.networks import dcgan
from models.seeds import derive, stream

SCORES = ("generator_loss", "discriminator_loss", "real_score", "fake_score")
"""What one step measures; a score is the probability of being real, by the discriminator."""


class Trainee:
    """The networks, optimisers and data order of one label.

    Everything random is derived from (seed, index, purpose, counter), so `steps_done` and the
    tensors of `generator_tensors` and `state_tensors` are the whole state.
    """

    def __init__(
        self,
        config: TrainingConfig,
        seed: int,
        index: int,
        label: str,
        rows: Tensor,
        device: torch.device,
    ) -> None:
        """Initialise the networks of `label`; `rows` `(n,) int64` are its training images."""
        self.index = index
        self.label = label
        self.rows = rows
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
        self._generator_adam = _adam(self.generator, config)
        self._discriminator_adam = _adam(self.discriminator, config)

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
        real_logits = self.discriminator(real)
        generated_logits = self.discriminator(generated.detach())
        judged = discriminator_loss(real_logits, generated_logits)
        self._discriminator_adam.zero_grad()
        torch.autograd.backward(judged)
        self._discriminator_adam.step()

        # The generator learns from the discriminator's new opinion of the same images.
        self.discriminator.requires_grad_(requires_grad=False)
        fooled = generator_loss(self.discriminator(generated))
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

    def snapshot(self, count: int) -> Tensor:
        """Return `count` images `(count, 1, S, S) uint8` of the same latents at every call."""
        random = stream(torch.device("cpu"), self._seed, self.index, "snapshot")
        latents = torch.randn((count, self._config.latent_size), generator=random)
        self.generator.eval()
        with torch.inference_mode():
            pixels = slices.to_pixels(self.generator(latents.to(self._device))).cpu()
        self.generator.train()
        return pixels

    def generator_tensors(self) -> dict[str, Tensor]:
        """Return the live tensors of the generator, keyed by index and name."""
        return {
            f"{self.index}.{name}": tensor for name, tensor in self.generator.state_dict().items()
        }

    def state_tensors(self) -> dict[str, Tensor]:
        """Return every other live tensor of the state, keyed by index, part and name."""
        tensors = {
            f"{self.index}.discriminator.{name}": tensor
            for name, tensor in self.discriminator.state_dict().items()
        }
        for part, network, adam in (
            ("generator_adam", self.generator, self._generator_adam),
            ("discriminator_adam", self.discriminator, self._discriminator_adam),
        ):
            for name, parameter in network.named_parameters():
                for moment, tensor in adam.state[parameter].items():
                    tensors[f"{self.index}.{part}.{name}.{moment}"] = tensor
        return tensors

    def _rows_of_epoch(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            random = stream(torch.device("cpu"), self._seed, self.index, "epoch", epoch)
            self._permutation = self.rows[torch.randperm(len(self.rows), generator=random)]
            self._epoch = epoch
        return self._permutation


def _adam(network: nn.Module, config: TrainingConfig) -> torch.optim.Adam:
    """Return Adam whose moments exist from the start, laid out like the weights.

    Adam makes them on its first step otherwise, and restoring would have to guess their layout.
    """
    adam = torch.optim.Adam(
        network.parameters(),
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        fused=True,
    )
    for parameter in network.parameters():
        adam.state[parameter] = {
            "step": torch.zeros((), device=parameter.device),
            "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
        }
    return adam
