"""Say what the curves of a training mean; no torch."""

from models.release import (
    LEAST_CONTRAST,
    LEAST_RECALL,
    MOST_HIGH_FREQUENCY_DB,
    MOST_OF_NOISE,
)

_KID = "Kernel distance (KID, no unit; 0 is equal, and noise can take it below)"
_SHARE = "Share, 0 to 1"

MEANINGS = {
    "images_per_second": "Images shown to the discriminators a second, since the attempt began.",
    "generator_loss": "Cross-entropy in nats, 0 or more. Judges nothing: undecided is 0.69 (ln 2).",
    "discriminator_loss": "Cross-entropy in nats, 0 or more. Judges nothing: undecided is 0.69"
    " (ln 2) with the generators of all labels, 1.39 (2 ln 2) with the paper's DCGAN.",
    "real_score": "Mean probability, 0 to 1, that the discriminator gives real images of being"
    " real; near 1 beside a fake_score near 0, it wins.",
    "fake_score": "Mean probability, 0 to 1, that it gives generated images of being real.",
    "right_pairs": "Of pairs of a real and a generated image, the share in which the discriminator"
    " finds the real one more real, less the share in which it does not: -1 to 1. Around 0 it tells"
    " nothing apart, above 0.9 it wins.",
    "real_slope": "Squared gradient of the discriminator at real images (R1), 0 or more; a sudden"
    " rise to twenty times the usual is a fault.",
    "generated_slope": "The same at generated images (R2).",
    "augmentation": "Probability, 0 to 0.8, of each variation of what the discriminator sees.",
    "overfitting": "How far the discriminator knows the training images by heart (r_v): 0 not at"
    " all, 1 wholly. Augmentation holds it at `overfitting_target`.",
    "kid": f"{_KID} of generated images to the validation split. Lower is better; the checkpoint"
    " where `all/kid` is lowest is the best one.",
    "kid_low": "Lower end of the 95 % interval of `kid` over other patients.",
    "kid_high": "Upper end of it.",
    "kid_floor": f"{_KID} of the training images to the validation split: what `kid` can reach.",
    "kid_floor_high": "Upper end of the 95 % interval of `kid_floor` over other patients.",
    "kid_noise": f"{_KID} of training images under noise (standard deviation 25 of 255) to the"
    f" validation split: a bad example. A `kid` above {MOST_OF_NOISE:g} of it is not released,"
    " unless it is near the floor.",
    "train_kid": f"{_KID} of generated images to the training images. Lower is nearer; far below"
    " `kid`, they are learnt by heart.",
    "precision": f"{_SHARE} of generated images within the neighbourhood of an unseen one. Higher"
    " is better: they look real.",
    "recall": f"{_SHARE} of unseen images within the neighbourhood of a generated one. Higher is"
    f" better: they are various; below {LEAST_RECALL:g} a generator is not released.",
    "coverage": f"{_SHARE} of unseen images whose own neighbourhood has a generated one in it."
    " Higher is better.",
    "diversity": "Spread of the features of generated images over that of unseen ones, 0 or more."
    " 1 is equal; below 0.5 few images are drawn again and again.",
    "neighbour_ratio": "Distance of generated images to the nearest training image, over that of"
    " unseen ones, 0 or more. 1 is as it should be; below 0.8 they are copies.",
    "high_frequency_db": "Power of generated images at the highest frequencies over that of unseen"
    " ones, in dB. 0 is equal, below 0 they are blurred, above 0 a mesh or noise lies over them;"
    f" beyond {MOST_HIGH_FREQUENCY_DB:g} either way a generator is not released.",
    "label_contrast": "How far the images of two labels are apart (KID), over how far those of"
    " training images are. 1 is as it should be, 0 says that labels are drawn alike; below"
    f" {LEAST_CONTRAST:g} a generator is not released.",
    "mask_share": f"{_SHARE} of pixels that generated masks mark; as near to `mask_share_real` as"
    " can be.",
    "mask_share_real": f"{_SHARE} of pixels that the masks of the validation split mark.",
}
"""Last part of a series' name -> what it measures, its unit and range, and which way is better."""


def meaning(name: str) -> str | None:
    """Return what the series `<label>/<measure>` means; None for one that we do not know."""
    return MEANINGS.get(name.rpartition("/")[2])
