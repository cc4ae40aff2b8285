"""Declare every knob once: frozen pydantic classes with bounds, units and defaults; no torch.

The same object validates the HTTP body, drives the loop, is saved beside the weights and is
printed in the report. The length of a run is counted in images shown to the discriminator.
"""

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

PACKED_SIZES = (64, 128, 256)
"""Side lengths in pixels at which ingest packs a dataset."""


MIN_TRAINING_IMAGES = 8
"""Fewer than this are memorised, not learned from."""

POOLED_LABEL = "all"
"""The label of the single network of `Networks.PER_DATASET`."""


class Frozen(BaseModel):
    """A value: immutable, with no field that nobody asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Networks(StrEnum):
    """What one unconditional network is trained on."""

    PER_LABEL = "per_label"
    PER_DATASET = "per_dataset"


class TrainingConfig(Frozen):
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
    total_images: int = Field(
        250_000, ge=1, le=50_000_000, description="Real images shown to the discriminators."
    )
    batch_size: int = Field(32, ge=2, le=512, description="Images per step.")
    snapshot_images: int = Field(
        25_000, ge=1, le=50_000_000, description="Images between two checkpoints with samples."
    )
    latent_size: int = Field(100, ge=1, le=1024, description="Length of the latent vector z.")
    generator_channels: int = Field(
        256, ge=16, le=1024, multiple_of=16, description="Channels of the generator at 8x8."
    )
    discriminator_channels: int = Field(
        64, ge=8, le=256, multiple_of=8, description="Channels after the first convolution."
    )
    learning_rate: float = Field(2e-4, gt=0, le=1e-1, description="Adam step size, both networks.")
    beta1: float = Field(0.5, ge=0, lt=1, description="Adam beta1, both networks.")
    beta2: float = Field(0.999, ge=0, lt=1, description="Adam beta2, both networks.")
    dropout: float = Field(0.3, ge=0, lt=1, description="Dropout rate of the discriminator.")


class Preset(Frozen):
    """A named starting point for a training."""

    name: str
    title: str
    config: TrainingConfig
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
            config=TrainingConfig(),
            memory_bytes=1_500_000_000,
            cpu_core_s_per_1000_images=98.0,
        ),
        Preset(
            name="demo",
            title="A narrow DCGAN at 64x64 that shows the whole way in minutes on two CPU cores",
            config=TrainingConfig(
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
    )
}


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
    """How much a report measures."""

    QUICK = "quick"


class ReportConfig(Frozen):
    """How the numbers of a report are resampled."""

    profile: ReportProfile = ReportProfile.QUICK
    draws: int = Field(200, ge=20, le=10_000, description="Resampled groups for each band.")
    min_holdout_images: int = Field(50, ge=1, description="Fewer give a grey verdict.")
    min_holdout_groups: int = Field(10, ge=1, description="Fewer give a grey verdict.")
    min_generated_images: int = Field(50, ge=1, description="Fewer give a grey verdict.")
