"""Describe the images of every side in each feature space, on one scale."""

from models.evaluation.feature_cache import FeatureCache
from models.evaluation.halves import Described, Side, Steps, Terms
from models.metrics.spaces import encoder, identity
from models.metrics.spaces.identity import Identity
from models.metrics.spaces.onnx_space import OnnxSpace
from models.metrics.spaces.random import RandomConvolutions
from models.metrics.spaces.space import Scale, Space, describe
from models.metrics.spaces.texture import Texture

ANATOMY = 1
"""Among the spaces: the one that sees most of it."""
NO_ENCODER = (
    "The encoder's weights are not installed: fixed random convolutions stand in for it, which see "
    "less of anatomy. Install the extra `worker` for it."
)
LEFT_OUT = "The operator's encoder {name} was left out: {why}."
IDENTITY_PARTS = 5


def in_spaces(
    sides: tuple[Side, Side, Side],
    blurred: Side,
    terms: Terms,
    tell: Steps,
    cache: FeatureCache,
) -> tuple[list[Described], list[str]]:
    """Describe the images in our own spaces, then in those of the operator that can be used."""
    extractors, limits = _extractors()
    found = []
    for extractor in extractors:
        tell(f"describing the images in {extractor.name}")
        found.append(_described(extractor, sides, blurred, cache))
    for path in terms.encoders:
        tell(f"describing the images by the encoder {path.stem}")
        try:
            found.append(_described(OnnxSpace.load(path), sides, blurred, cache))
        except encoder.EncoderError as error:
            limits.append(LEFT_OUT.format(name=path.stem, why=error))
    return found, limits


def learnt(training: Side, seed: int, tell: Steps) -> Identity:
    """Learn who is who; training is told of, and may be stopped, `IDENTITY_PARTS` times."""

    def at(step: int) -> None:
        if step % (identity.STEPS // IDENTITY_PARTS) == 0:
            tell(f"learning to find copies: {step / identity.STEPS:.0%}")

    return Identity.train(training.images, seed, at)


def _extractors() -> tuple[list[Space], list[str]]:
    path = encoder.find()
    if path is None:
        return [Texture(), RandomConvolutions()], [NO_ENCODER]
    return [Texture(), encoder.Encoder(path)], []


def _described(
    extractor: Space, sides: tuple[Side, Side, Side], blurred: Side, cache: FeatureCache
) -> Described:
    """Describe every side, on the scale of all that are images of somebody or claim to be.

    Real images share no batch with generated ones, on which their last bits would depend.
    """
    known = cache.describe(extractor, *(side.images for side in (*sides[:2], blurred)))
    found = describe(extractor, *(side.images for side in (*sides, blurred)), known=known)
    scale = Scale.of(*found[:3])
    training, holdout, generated, fault = (scale.apply(found.pop(0)) for _ in range(4))
    return Described(
        extractor.name,
        extractor.names,
        training,
        sides[0].groups,
        holdout,
        sides[1].groups,
        generated,
        fault,
        scale,
    )
