"""Hold one generator of all labels and its discriminator while they are trained."""

import math

import torch
from torch import Tensor, nn

from models.augment import Variations, draw, vary
from models.averages import SHARES, Average
from models.compiling import Judge, compiled
from models.config import MIN_VALIDATION_IMAGES, HybridConfig
from models.data import slices
from models.data.slices import Slices
from models.guard import Order
from models.losses import relativistic_loss
from models.penalties import judge_with_slope
from models.ranks import ALONE, Ranks
from models.seeds import derive, stream
from models.trainees.optimiser import adam, adam_tensors, network_tensors

SCORES = (
    "generator_loss",
    "discriminator_loss",
    "right_pairs",
    "real_slope",
    "generated_slope",
    "augmentation",
    "overfitting",
)
"""What one step measures.

`right_pairs` is the mean sign of how much more real the real image of a pair looks, in [-1, 1];
the slopes are R1 and R2 without their weight; `overfitting` is r_v, of the last time it was taken.
"""

LABEL = "all"
"""What the curves are named by."""

MOST_AUGMENTATION = 0.8
"""Beyond it the generator learns to draw the variations (Karras et al. 2020, section 2.2)."""

_RARE, _RARE_EXTRA = 100, 0.2
"""A label with fewer images is varied so much more often."""
_FIXED = ((300, 0.6), (2_000, 0.4), (math.inf, 0.2))
"""Fewer images than this -> the probability, where no validation split tells."""
_RAMP = 0.05
"""Share of the run over which variations may come in."""
_WARM_UP = 0.01
_LOOK_STEPS = 4
"""Steps between two looks at the validation split."""
_ADJUST_LOOKS = 4
"""Looks between two changes of the probability."""
_SHARE_TO_ALL, _IMAGES_TO_ALL = 0.1, (5_000, 500_000)
"""Share of the run over which the probability could go from 0 to 1, within these bounds.

The paper's 500,000 images suit runs of 25 million; a short one would be over before it adapted.
"""
_LARGEST_GRADIENT = 10.0
_DRAWN_TOGETHER = 64
_RELEASED, _PACE, _DISCRIMINATOR_PACE, _GAMMA, _ADDED, _FLOAT32 = range(5, 11)
"""Where in the controls these are."""
_LOST_LABEL_RATE = 1.5
_NAMELESS_SHARE, _NAMELESS_RATE = 0.05, 0.3
"""For so much of the run, a label that got lost loses its name in so many pairs."""


_TOLERANCE, _HALF_TOLERANCE = 1e-4, 0.1
"""Of gradients that were computed in another order, in float32 and bfloat16."""


class ConditionalTrainee:
    """The networks, averages, optimisers and data order of all labels; see `Trainee`."""

    def __init__(
        self,
        config: HybridConfig,
        seed: int,
        networks: tuple[nn.Module, nn.Module],
        data: Slices,
        validation: Slices,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> None:
        """Take fresh networks, generator and discriminator; `validation` is only looked at."""
        self.index = 0
        self.label = LABEL
        self.labels = data.names
        self.scores: tuple[str, ...] = SCORES
        self.rows = torch.arange(len(data.labels))
        self.steps_total = 1
        self.steps_done = 0
        self._config = config
        self._seed = seed
        self._device = device
        self._ranks = ranks
        self._random = torch.Generator(device)
        # Apart, since each process varies its own part of a batch.
        self._variations = torch.Generator(device)
        self._members = _members(data)
        self._validation_images = validation.images.to(device)
        self._validation_members = _members(validation)
        self._rates = torch.tensor(
            [float(len(rows)) ** config.balance if len(rows) else 0.0 for rows in self._members],
            dtype=torch.float64,
        )
        # Until which step a label that got lost is mostly shown without its name.
        self._nameless_until = torch.zeros(len(data.names), dtype=torch.float64)
        extra = _RARE_EXTRA if config.augmentation is None else 0.0
        self._extra = torch.tensor(
            [extra if len(rows) < _RARE else 0.0 for rows in self._members] + [0.0],
            device=device,
        )
        self._judge_steeply: Judge = self._logits_and_slopes
        self.generator, self.discriminator = networks
        for network in (self.generator, self.discriminator):
            network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averages = {name: Average(self.generator, share) for name, share in SHARES.items()}
        self.versions = tuple(SHARES)
        betas = (config.beta1, config.beta2)
        self._generator_adam = adam(self.generator, learning_rate=config.learning_rate, betas=betas)
        self._discriminator_adam = adam(
            self.discriminator, learning_rate=config.learning_rate, betas=betas
        )
        # Probability, r_v, and the sums over looks of what r_v is made of (logits of training,
        # validation and generated images); the number of the released average; then what a guard
        # has ordered: factors on both paces and on gamma, what is added to the probability, and
        # whether convolutions are in float32.
        self._controls = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0], dtype=torch.float64)

    @property
    def released(self) -> str:
        """Which average the weights hold and `draw` draws from."""
        return self.versions[int(self._controls[_RELEASED])]

    @released.setter
    def released(self, name: str) -> None:
        self._controls[_RELEASED] = self.versions.index(name)

    @property
    def fraction(self) -> float:
        """How much of the run is done, in [0, 1]."""
        return min(self.steps_done / self.steps_total, 1.0)

    @property
    def overfitting(self) -> float:
        """The ratio r_v of the last time that it was taken, in [-1, 2]."""
        return float(self._controls[1])

    @property
    def augmentation(self) -> float:
        """The probability of each variation at this step."""
        config, ramp = self._config, min(self.fraction / _RAMP, 1.0)
        if config.augmentation is not None:
            probability = config.augmentation
        elif self._adapts:
            probability = float(self._controls[0])
        else:
            probability = next(p for fewer, p in _FIXED if len(self.rows) < fewer)
        ordered = min(max(probability + float(self._controls[_ADDED]), 0.0), MOST_AUGMENTATION)
        return min(ordered, MOST_AUGMENTATION * ramp) if self._adapts else ordered * ramp

    @property
    def gamma(self) -> float:
        """The weight of the penalties at this step."""
        rise = (1 - math.cos(math.pi * self.fraction)) / 2
        ordered = float(self._controls[_GAMMA])
        return ordered * self._config.gamma * float(self._config.gamma_rise**rise)

    def step(self, images: Tensor) -> Tensor:
        """Train on the next batch of `images` `(N, C, S, S) uint8`; return `SCORES`, float64."""
        share = self._ranks.share
        self._random.manual_seed(derive(self._seed, 0, "step", self.steps_done))
        place = (self._ranks.rank, self.steps_done)
        self._variations.manual_seed(derive(self._seed, 0, "variations", *place))
        self._set_pace()
        labels, rows = self._draw_pairs(self._members, "pairs")
        real = share(self._signal(images[rows.to(self._device)]))
        shown = share(self._without_some(labels)).to(self._device)
        latents = torch.randn(
            (len(labels), self._config.latent_size), generator=self._random, device=self._device
        )
        with self._autocast(self._is_half):
            generated = self.generator(share(latents), shown)

        # The discriminator learns which of a pair is real, and to be no steeper than needed.
        # One pass sees both: the penalties are taken before the variation, through it.
        both, of_both = torch.cat([real, generated.detach()]), torch.cat([shown, shown])
        variations = self._draw_variations(both, of_both)
        logits, slopes = self._judge_steeply(both, of_both, variations, self._is_half)
        real_slope, generated_slope = slopes.view(2, -1).mean(1)
        real_logits, generated_logits = logits.chunk(2)
        judged = relativistic_loss(real_logits, generated_logits)
        penalty = self.gamma / 2 * (real_slope + generated_slope)
        is_sound = self._follow(self._discriminator_adam, self.discriminator, judged + penalty)

        # The generator learns to look more real than the real image of its pair.
        self.discriminator.requires_grad_(requires_grad=False)
        with torch.no_grad():
            rivals = self._judge(real, shown)
        fooled = relativistic_loss(self._judge(generated, shown), rivals)
        # Every process has to come to the averaging, even if the other step was dropped.
        is_sound = self._follow(self._generator_adam, self.generator, fooled) and is_sound
        self.discriminator.requires_grad_(requires_grad=True)

        self.steps_done += 1
        size = self._config.batch_size
        if is_sound:
            for average in self.averages.values():
                average.update(self.generator, size, self.steps_done * size)
            if self._adapts and self.steps_done % _LOOK_STEPS == 0:
                self._look(real_logits, generated_logits)
        right = (real_logits - generated_logits).sign().mean()
        measured = torch.stack([fooled, judged, right, real_slope, generated_slope]).detach()
        self._ranks.mean_([measured])
        if not is_sound:
            # A loss may be finite where its gradient is not: what was dropped must be seen.
            measured = torch.full_like(measured, torch.nan)
        controls = torch.tensor([self.augmentation, float(self._controls[1])], dtype=torch.float64)
        return torch.cat([measured.double(), controls.to(self._device)])

    def compile(self) -> str:
        """Compile the discriminator's step, unless that changes its gradients; say what was done.

        It is done anew in every process, so a run that is resumed is the same only up to rounding.
        """
        config, count = self._config, 2 * self._config.batch_size // self._ranks.count
        random = torch.Generator(self._device).manual_seed(self._seed)
        shape = (count, config.planes, config.image_size, config.image_size)
        images = torch.rand(shape, generator=random, device=self._device) * 2 - 1
        labels = torch.arange(count, device=self._device) % (len(self.labels) + 1)
        arguments = (images, labels, draw(images, 0.5, random), self._is_half)
        tolerance = _HALF_TOLERANCE if self._is_half else _TOLERANCE
        judge = self._logits_and_slopes
        function, message = compiled(judge, arguments, self.discriminator.parameters(), tolerance)
        self._judge_steeply = function or judge
        return message

    def obey(self, order: Order) -> None:
        """Go on as a guard has ordered; what it says of going back is for the loop to do."""
        controls = self._controls
        controls[_PACE] *= order.pace
        controls[_DISCRIMINATOR_PACE] *= order.discriminator_pace
        controls[_GAMMA] *= order.gamma
        controls[_ADDED] += order.augmentation
        controls[_FLOAT32] = max(float(controls[_FLOAT32]), float(order.is_float32))
        if order.is_float32:
            # What was compiled and tested is another precision.
            self._judge_steeply = self._logits_and_slopes
        for label in order.lost_labels:
            number = self.labels.index(label)
            self._rates[number] *= _LOST_LABEL_RATE
            until = self.steps_done + _NAMELESS_SHARE * self.steps_total
            self._nameless_until[number] = until

    def ordered_tensors(self) -> dict[str, Tensor]:
        """Return the part of the state that stays as it is when the rest goes back."""
        return {
            "0.controls": self._controls,
            "0.rates": self._rates,
            "0.nameless_until": self._nameless_until,
        }

    def draw(self, label: int, count: int, purpose: str) -> Tensor:
        """Return planes `(count, C, S, S) uint8` of the released average; see `Trainee`."""
        random = stream(torch.device("cpu"), self._seed, 0, purpose)
        latents = torch.randn((count, self._config.latent_size), generator=random)
        network = self.averages[self.released].network
        batches = []
        with torch.inference_mode():
            for batch in torch.split(latents.to(self._device), _DRAWN_TOGETHER):
                which = torch.full((len(batch),), label, device=self._device)
                batches.append(slices.to_planes(network(batch, which)).cpu())
        return torch.cat(batches)

    def generator_tensors(self) -> dict[str, Tensor]:
        """Return the live tensors of the average that is released, keyed by index and name."""
        return network_tensors("0", self.averages[self.released].network)

    def state_tensors(self) -> dict[str, Tensor]:
        """Return every other live tensor of the state, keyed by index, part and name."""
        tensors = {
            **network_tensors("0.generator", self.generator),
            **network_tensors("0.discriminator", self.discriminator),
            **adam_tensors("0.generator_adam", self.generator, self._generator_adam),
            **adam_tensors("0.discriminator_adam", self.discriminator, self._discriminator_adam),
            **self.ordered_tensors(),
        }
        # The released one too, which the weights also hold: only the state says which that is.
        for name, average in self.averages.items():
            tensors |= network_tensors(f"0.average.{name}", average.network)
        return tensors

    @property
    def _adapts(self) -> bool:
        return (
            self._config.augmentation is None
            and len(self._validation_images) >= MIN_VALIDATION_IMAGES
        )

    @property
    def _is_half(self) -> bool:
        """Whether convolutions are in bfloat16 now."""
        precision = self._config.precision
        is_half = precision == "bfloat16" or (precision == "auto" and self._device.type == "cuda")
        return is_half and not self._controls[_FLOAT32]

    def _autocast(self, is_half: bool) -> torch.autocast:  # noqa: FBT001 - it is what it says
        return torch.autocast(self._device.type, torch.bfloat16, enabled=is_half)

    def _set_pace(self) -> None:
        """Warm up, then follow a cosine from the learning rate to what is left of it."""
        config, final = self._config, self._config.final_learning_rate
        share = final + (1 - final) * (1 + math.cos(math.pi * self.fraction)) / 2
        ordered = float(self._controls[_PACE])
        pace = ordered * config.learning_rate * share * min(self.fraction / _WARM_UP + 0.01, 1.0)
        for group in self._generator_adam.param_groups:
            group["lr"] = pace
        own = pace * config.discriminator_pace * float(self._controls[_DISCRIMINATOR_PACE])
        for group in self._discriminator_adam.param_groups:
            group["lr"] = own

    def _draw_pairs(self, members: list[Tensor], purpose: str) -> tuple[Tensor, Tensor]:
        """Draw labels and, for each, one of its images: `(batch,) int64` both, on the CPU."""
        random = stream(torch.device("cpu"), self._seed, 0, purpose, self.steps_done)
        counts = torch.tensor([len(rows) for rows in members])
        rates = self._rates * (counts > 0)
        labels = rates.multinomial(self._config.batch_size, replacement=True, generator=random)
        places = torch.rand(len(labels), generator=random, dtype=torch.float64) * counts[labels]
        rows = [
            members[label][place]
            for label, place in zip(labels.tolist(), places.long().tolist(), strict=True)
        ]
        return labels, torch.stack(rows)

    def _follow(self, optimiser: torch.optim.Adam, network: nn.Module, loss: Tensor) -> bool:
        """Take one step down `loss`, unless its gradient is not finite; return whether it was.

        The clip is a guard, not a part of the method.
        """
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        self._ranks.mean_([one.grad for one in network.parameters() if one.grad is not None])
        norm = nn.utils.clip_grad_norm_(network.parameters(), _LARGEST_GRADIENT)
        if not bool(norm.isfinite()):
            return False
        optimiser.step()
        return True

    def _signal(self, images: Tensor) -> Tensor:
        """Scale `(N, C, S, S) uint8`, and mirror each with probability one half if allowed.

        Real masks stay at exactly -1 and 1, which the generator's tanh only comes near. The
        penalties hold the discriminator's slope, so that the gap is worth little to it, and tanh
        flattens what is painted onto the same two levels. Levels of 0.9, which have to be hit where
        tanh is steep, and soft edges were no better (docs/log.md).
        """
        signal = slices.to_signal(images)
        if not self._config.is_mirrored:
            return signal
        draws = torch.rand(len(images), generator=self._random, device=self._device)
        return torch.where(draws[:, None, None, None] < 0.5, signal.flip(3), signal)  # noqa: PLR2004

    def _without_some(self, labels: Tensor) -> Tensor:
        """Replace some of the labels, in whole pairs, by the one that stands for any."""
        random = stream(torch.device("cpu"), self._seed, 0, "dropped", self.steps_done)
        is_lost = self._nameless_until[labels] > self.steps_done
        usual = self._config.label_dropout
        rate = torch.where(is_lost, max(_NAMELESS_RATE, usual), usual)
        is_dropped = torch.rand(len(labels), generator=random) < rate
        return labels.masked_fill(is_dropped, len(self.labels))

    def _judge(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the logits `(N, 1) float32` of images that are varied first."""
        return self._logits(images, labels, self._draw_variations(images, labels), self._is_half)

    def _draw_variations(self, images: Tensor, labels: Tensor) -> Variations:
        # The first term has come in already, as far as the run is.
        extra = self._extra[labels] * min(self.fraction / _RAMP, 1.0)
        probability = (self.augmentation + extra).clamp_max(MOST_AUGMENTATION)
        return draw(images, probability, self._variations)

    def _logits(
        self,
        images: Tensor,
        labels: Tensor,
        variations: Variations,
        is_half: bool,  # noqa: FBT001 - it is what it says
    ) -> Tensor:
        seen = vary(images, variations)  # in float32: half of it cannot count 64 pixels
        with self._autocast(is_half):
            logits: Tensor = self.discriminator(seen, labels)
        return logits

    def _logits_and_slopes(
        self,
        images: Tensor,
        labels: Tensor,
        variations: Variations,
        is_half: bool,  # noqa: FBT001 - it is what it says
    ) -> tuple[Tensor, Tensor]:
        return judge_with_slope(
            lambda inputs: self._logits(inputs, labels, variations, is_half), images
        )

    @torch.no_grad()
    def _look(self, real_logits: Tensor, generated_logits: Tensor) -> None:
        """Compare with images that were never learnt from, and adapt the augmentation to it.

        r_v = (E D(train) - E D(validation)) / (E D(train) - E D(generated)), Karras et al. 2020,
        equation 1; it does not see the constant that a relativistic loss leaves free.
        """
        labels, rows = self._draw_pairs(self._validation_members, "validation")
        unseen = self._signal(self._validation_images[rows.to(self._device)])
        share = self._ranks.share
        unseen_logits = self._judge(share(unseen), share(labels).to(self._device))
        sides = (real_logits, unseen_logits, generated_logits)
        means = torch.stack([logits.mean() for logits in sides])
        self._ranks.mean_([means])
        self._controls[2:_RELEASED] += means.double().cpu()
        if self.steps_done % (_LOOK_STEPS * _ADJUST_LOOKS):
            return
        train, validation, fake = self._controls[2:_RELEASED].tolist()
        self._controls[2:_RELEASED] = 0
        ratio = (train - validation) / (train - fake) if train > fake else 0.0
        size, (least, most) = self._config.batch_size, _IMAGES_TO_ALL
        to_all = min(max(_SHARE_TO_ALL * self.steps_total * size, least), most)
        shown = _LOOK_STEPS * _ADJUST_LOOKS * size
        change = math.copysign(shown / to_all, ratio - self._config.overfitting_target)
        probability = float(self._controls[0]) + change
        self._controls[0] = min(max(probability, 0.0), MOST_AUGMENTATION)
        self._controls[1] = min(max(ratio, -1.0), 2.0)


def _members(data: Slices) -> list[Tensor]:
    """Return the rows of each label, in the order of the names."""
    return [(data.labels == index).nonzero().flatten() for index in range(len(data.names))]
