"""Declare every knob once: frozen pydantic classes with bounds, units and defaults; no torch.

The same object validates the HTTP body, drives the loop, is saved beside the weights and is
printed in the report. The length of a run is counted in images shown to the discriminator.
"""

import math
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

PACKED_SIZES = (64, 128, 256)
"""Side lengths in pixels at which ingest packs a dataset."""


MIN_TRAINING_IMAGES = 8
"""Fewer than this are memorised, not learned from."""

MIN_VALIDATION_IMAGES = 20
"""With fewer nothing is measured in a training: an interval would be as wide as the scale."""

RACE_LEGS = 5
"""Each of three to the middle of a race, then two of them to its end."""
_RACE_SHARE, _RACE_IMAGES = 0.03, 30_000
"""Images of each where none are named: this share of the run, if it is at least so many."""

POOLED_LABEL = "all"
"""The label of the single network of `Networks.PER_DATASET`."""


Finite = Annotated[float, Field(allow_inf_nan=False)]


class Frozen(BaseModel):
    """A value: immutable, with no field that nobody asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Networks(StrEnum):
    """What one unconditional network is trained on."""

    PER_LABEL = "per_label"
    PER_DATASET = "per_dataset"


class TrainingConfig(Frozen):
    """What every training has; the length of a run is in real images shown."""

    image_size: Literal[64, 128, 256] = Field(128, description="Side of the images, in pixels.")
    total_images: int = Field(
        250_000, ge=1, le=50_000_000, description="Real images shown to the discriminators."
    )
    batch_size: int = Field(32, ge=2, le=512, description="Images per step.")
    snapshot_images: int = Field(
        25_000, ge=1, le=50_000_000, description="Images between two checkpoints with samples."
    )
    latent_size: int = Field(100, ge=1, le=1024, description="Length of the latent vector z.")
    learning_rate: float = Field(2e-4, gt=0, le=1e-1, description="Adam step size.")
    beta1: float = Field(0.5, ge=0, lt=1, description="Adam beta1, both networks.")
    beta2: float = Field(0.999, ge=0, lt=1, description="Adam beta2, both networks.")

    @property
    def planes(self) -> int:
        """How many planes are generated: the image, and its mask if there is one."""
        return 1


class DCGANConfig(TrainingConfig):
    """How a DCGAN is trained; the defaults are the 2024 paper's.

    Radford, Metz and Chintala 2015, https://arxiv.org/abs/1511.06434, with the layer sizes, batch
    and dropout of the paper's listing. The run is split over the networks in proportion to their
    images, so `total_images` means the same number of epochs whether `networks` is one or many.
    """

    architecture: Literal["dcgan"] = "dcgan"
    networks: Networks = Field(
        Networks.PER_LABEL, description="Train one network per label, or one on all images."
    )
    image_size: Literal[64, 128] = Field(128, description="Side of the images, in pixels.")
    generator_channels: int = Field(
        256, ge=16, le=1024, multiple_of=16, description="Channels of the generator at 8x8."
    )
    discriminator_channels: int = Field(
        64, ge=8, le=256, multiple_of=8, description="Channels after the first convolution."
    )
    dropout: float = Field(0.3, ge=0, lt=1, description="Dropout rate of the discriminator.")
    augmentation: float = Field(
        0.0,
        ge=0,
        le=0.8,
        description="Probability of each variation of what the discriminator sees; the paper has "
        "none.",
    )


class HybridConfig(TrainingConfig):
    """How the generator of all labels is trained: one network, which is told the label.

    Relativistic loss with both gradient penalties at every step, augmentation that follows how far
    the discriminator has learnt the training images by heart, averages of the weights.
    """

    architecture: Literal["hybrid"] = "hybrid"
    batch_size: int = Field(64, ge=2, le=512, description="Images per step.")
    latent_size: int = Field(192, ge=1, le=1024, description="Length of the latent vector z.")
    beta1: float = Field(0.0, ge=0, lt=1, description="Adam beta1, both networks.")
    beta2: float = Field(0.99, ge=0, lt=1, description="Adam beta2, both networks.")
    generator_channels: int = Field(
        48, ge=4, le=128, multiple_of=2, description="Channels of the generator at 128x128."
    )
    discriminator_channels: int = Field(
        48, ge=4, le=128, description="Channels after the first convolution."
    )
    discriminator_widest: int = Field(
        384, ge=16, le=1024, description="Channels that no layer of the discriminator exceeds."
    )
    discriminator_pace: float = Field(
        2.0, gt=0, le=10, description="Step size of the discriminator over that of the generator."
    )
    final_learning_rate: float = Field(
        0.25, gt=0, le=1, description="Share of the step size that a cosine leaves at the end."
    )
    gamma: float = Field(
        1.0, ge=0, le=1000, description="Weight of the gradient penalties at the start."
    )
    gamma_rise: float = Field(
        8.0, ge=1, le=100, description="Factor by which a cosine raises that weight over the run."
    )
    race_images: int | None = Field(
        None,
        ge=0,
        le=10_000_000,
        description="Images for each of three weights of the penalties, an eighth, the same and "
        "eight times, which race at the start of a run, the worst to the middle only; without one "
        "3 % of `total_images` where that is at least 30,000, else there is no race. It takes two "
        "and a half times as many in all, and may be run twice.",
    )
    augmentation: float | None = Field(
        None,
        ge=0,
        le=0.8,
        description="Probability of each variation of what the discriminator sees; without one it "
        "adapts to the validation split.",
    )
    overfitting_target: float = Field(
        0.5, gt=0, lt=1, description="What adaptive augmentation holds r_v at; 1 is by heart."
    )
    is_mirrored: bool = Field(
        default=True,
        description="Whether left and right may be exchanged; not if labels say which.",
    )
    balance: float = Field(
        0.5,
        ge=0,
        le=1,
        description="A label with n images is shown in proportion to n to this power.",
    )
    label_dropout: float = Field(
        0.1, ge=0, lt=1, description="Share of the pairs that are shown without their label."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Of the convolutions; `auto` is bfloat16 on a GPU, else float32."
    )
    has_masks: bool = Field(
        default=False,
        description="Whether a tumour mask is generated beside each image, as a second plane; the "
        "dataset needs masks, and what has none there counts as without a tumour.",
    )

    is_compiled: bool = Field(
        default=False,
        description="Whether the discriminator's step is compiled, once its gradients have been "
        "found to be the same; for a GPU, and where there is a C compiler.",
    )

    @property
    def planes(self) -> int:
        """How many planes are generated: the image, and its mask if there is one."""
        return 2 if self.has_masks else 1

    @property
    def race_leg_steps(self) -> int:
        """How many steps each of the five legs of a race has; 0 if there is none."""
        images: float | None = self.race_images
        if images is None:
            images = _RACE_SHARE * self.total_images
            images = images if images >= _RACE_IMAGES else 0
        return math.ceil(images / 2 / self.batch_size) if self.gamma else 0

    @model_validator(mode="after")
    def _leaves_time_after_a_race(self) -> Self:
        if 2 * RACE_LEGS * self.race_leg_steps >= math.ceil(self.total_images / self.batch_size):
            raise ValueError(
                "the race would take the whole run, as it may be run twice: let total_images be"
                " more than 5 times race_images, and some steps more"
            )
        return self


AnyTrainingConfig = Annotated[DCGANConfig | HybridConfig, Field(discriminator="architecture")]
TRAINING_CONFIG: TypeAdapter[DCGANConfig | HybridConfig] = TypeAdapter(AnyTrainingConfig)


class Preset(Frozen):
    """A named starting point for a training."""

    name: str
    title: str
    config: AnyTrainingConfig
    memory_bytes: int = Field(description="Of one training process on a CPU, measured.")
    cpu_core_s_per_1000_images: float = Field(
        description="Seconds of one CPU core for 1,000 training images, measured."
    )


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            name="baseline-dcgan",
            title="The 2024 paper's DCGAN at 128x128: the reference point every result is held to",
            config=DCGANConfig(),
            memory_bytes=1_500_000_000,
            cpu_core_s_per_1000_images=98.0,
        ),
        Preset(
            name="demo",
            title="A narrow DCGAN at 64x64 that shows the whole way in minutes on two CPU cores",
            config=DCGANConfig(
                image_size=64,
                total_images=45_000,
                batch_size=12,
                snapshot_images=9_000,
                generator_channels=128,
                discriminator_channels=16,
                learning_rate=4e-4,
            ),
            memory_bytes=600_000_000,
            cpu_core_s_per_1000_images=5.0,
        ),
        Preset(
            name="cpu-64",
            title="One generator of all labels at 64x64, for hours on a few CPU cores",
            config=HybridConfig(
                image_size=64,
                total_images=200_000,
                batch_size=16,
                snapshot_images=10_000,
                generator_channels=16,
                discriminator_channels=16,
                discriminator_widest=128,
                learning_rate=1e-3,
                gamma=0.25,
            ),
            memory_bytes=1_000_000_000,
            cpu_core_s_per_1000_images=44.0,
        ),
        Preset(
            name="standard-128",
            title="One generator of all labels at 128x128, for a GPU",
            config=HybridConfig(total_images=1_500_000, snapshot_images=50_000),
            memory_bytes=10_000_000_000,
            cpu_core_s_per_1000_images=1_400.0,
        ),
        Preset(
            name="high-256",
            title="One generator of all labels at 256x256, for a GPU",
            config=HybridConfig(
                image_size=256,
                total_images=1_500_000,
                snapshot_images=50_000,
                discriminator_channels=24,
                gamma=5.0,
            ),
            memory_bytes=20_500_000_000,
            cpu_core_s_per_1000_images=2_700.0,
        ),
    )
}


class Interpolation(Frozen):
    """The way from the images of one seed to those of another."""

    to_seed: int = Field(ge=0, lt=2**53, description="The seed of the last images.")
    steps: int = Field(ge=2, le=100, description="Images on the way, both ends among them.")


class SampleFilter(Frozen):
    """Which generated images are withheld."""

    copies: bool = Field(
        default=False,
        description="Withhold what is nearer to a training image than all but one in a hundred "
        "unseen real images are, mirrored and shifted too.",
    )
    realism: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Withhold what is less realistic, by its neighbours among the training images "
        "in `texture-v1`, than this share of unseen real images.",
    )


class SamplingConfig(Frozen):
    """How images are drawn from a trained generator."""

    temperature: float = Field(
        1.0,
        gt=0,
        le=1.2,
        description="Factor of the latents: below 1 images are more alike and nearer the typical "
        "one, above 1 more various.",
    )
    interpolate: Interpolation | None = Field(
        None,
        description="For each image asked for, draw this many along the great circle between its "
        "latent and that of another seed.",
    )

    filter: SampleFilter = SampleFilter()

    @property
    def images_each(self) -> int:
        """How many images there are for one that is asked for."""
        return 1 if self.interpolate is None else self.interpolate.steps


class LabelSource(StrEnum):
    """Where the label of an image comes from, unless a manifest says it."""

    FOLDER = "folder"
    MASK = "mask"


class Axis(StrEnum):
    """Across which axis of the patient a volume is cut into slices."""

    AUTO = "auto"
    AXIAL = "axial"
    CORONAL = "coronal"
    SAGITTAL = "sagittal"


class IngestConfig(Frozen):
    """What ingest accepts, and how it decides what is nearly the same picture."""

    max_entries: int = Field(500_000, ge=1, description="Entries in one archive.")
    max_entry_bytes: int = Field(256 << 20, ge=1, description="Inflated size of one entry.")
    max_total_bytes: int = Field(200 << 30, ge=1, description="Inflated size of all entries.")
    max_ratio: float = Field(200.0, gt=1, description="Inflated to stored size, past 10 MiB.")
    max_pixels: int = Field(64_000_000, ge=1, description="Width times height of one image.")
    max_voxels: int = Field(1 << 27, ge=1, description="Pixels of all slices of one file.")
    min_side_px: int = Field(32, ge=1, description="Shorter side below which an image is refused.")
    max_labels: int = Field(100, ge=1, description="Class folders in one dataset.")
    near_duplicate_bits: int = Field(
        60, ge=0, le=255, description="Hash distance, of 255, up to which images share a group."
    )
    max_group_share: float = Field(
        0.05, gt=0, le=1, description="Share of the images past which a group stops growing."
    )
    sizes: tuple[int, ...] = PACKED_SIZES
    labels: LabelSource = Field(
        LabelSource.FOLDER,
        description="`folder`: the folder that holds an image. `mask`: `tumor` where its mask "
        "marks something, else `no_tumor`; the folder of a volume is then taken for its patient.",
    )
    axis: Axis = Field(
        Axis.AUTO,
        description="Across which axis NIfTI volumes are cut; `auto` takes that of the thickest "
        "slices.",
    )


class ReportProfile(StrEnum):
    """How much a report measures.

    What is measured during a training, the profile `live`, is none of them: it compares with the
    validation split, in a space of its own, and is read in the history of the generator.
    """

    QUICK = "quick"
    """Integrity and gray levels."""
    STANDARD = "standard"
    """Spectrum, fidelity, diversity, copies and disclosure as well."""
    DEEP = "deep"
    """Whether labels and masks are right, and images help what learns from them, as well."""


CLOSEST, GENERATED = "closest", "generated"
REAL_STRIP, GENERATED_STRIP = "real-", "synthetic-"
"""What plots of a few images of one label begin with; the label's number follows."""
STRIP_IMAGES = 5
"""So many at most; where there are fewer the strip has room for them."""


def shows_patients(plot: str) -> bool:
    """Tell whether a report's plot of this name has images of patients in it."""
    return plot == CLOSEST or plot.startswith(REAL_STRIP)


def shows_generated(plot: str) -> bool:
    """Tell whether a report's plot of this name has generated images, and no others, in it."""
    return plot == GENERATED or plot.startswith(GENERATED_STRIP)


class ReportConfig(Frozen):
    """How the numbers of a report are resampled."""

    profile: ReportProfile = ReportProfile.QUICK
    draws: int = Field(200, ge=20, le=10_000, description="Resampled groups for each band.")
    min_holdout_images: int = Field(50, ge=1, description="Fewer give a grey verdict.")
    min_holdout_groups: int = Field(10, ge=1, description="Fewer give a grey verdict.")
    min_generated_images: int = Field(50, ge=1, description="Fewer give a grey verdict.")
    max_images: int = Field(
        4000, ge=100, le=10_000, description="Of a side with more, so many are drawn for features."
    )
    classifier_steps: int = Field(
        200, ge=10, le=10_000, description="Of the training of a classifier, in profile deep."
    )
    classifier_seeds: int = Field(
        10, ge=3, le=50, description="Classifiers that are trained alike, in profile deep."
    )
    segmenter_steps: int = Field(
        200,
        ge=10,
        le=10_000,
        description="Of the training of a segmentation network, in profile deep, where real and"
        " generated images have masks.",
    )
    segmenter_seeds: int = Field(
        5, ge=3, le=50, description="Segmentation networks that are trained alike, likewise."
    )


class EncoderConfig(Frozen):
    """Describe an encoder that the operator brings: which file it is, and what it takes."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Of the file, lower case.")
    channels: Literal[1, 3] = Field(description="Three take the same gray values each.")
    input_px: int = Field(ge=16, le=1024, description="Side to which images are resized.")
    mean: tuple[Finite, ...] = Field(description="Of each channel, of gray values in [0, 1].")
    std: tuple[Annotated[Finite, Field(gt=0)], ...] = Field(description="Likewise.")

    @model_validator(mode="after")
    def _one_a_channel(self) -> Self:
        if {len(self.mean), len(self.std)} != {self.channels}:
            raise ValueError(f"mean and std must have {self.channels} numbers each")
        return self
