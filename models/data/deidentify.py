"""What of a DICOM file is kept, and what becomes of the rest: a keep-list, not a remove-list.

After PS3.15 Annex E, Basic Application Level Confidentiality Profile. Training needs pixels,
spacing, orientation and who belongs to whom, and nothing else leaves the decoder: `KEPT` is read
and used, two identifiers become keyed hashes, all else is dropped, whatever it is and whether or
not a standard of tomorrow knows it. What was dropped is counted by kind and never by value.
"""

import hashlib
import hmac
from collections import Counter
from collections.abc import Iterable
from typing import Protocol

PIXEL_MODULE_GROUP = 0x0028
KEPT = frozenset(
    {
        "BitsAllocated BitsStored HighBit PixelRepresentation SamplesPerPixel Rows Columns",
        "NumberOfFrames PhotometricInterpretation PlanarConfiguration PixelData",
        "FloatPixelData DoubleFloatPixelData PixelSpacing ImagerPixelSpacing SpacingBetweenSlices",
        "SliceThickness ImagePositionPatient ImageOrientationPatient SliceLocation InstanceNumber",
        "RescaleSlope RescaleIntercept WindowCenter WindowWidth VOILUTFunction ModalityLUTSequence",
        "VOILUTSequence RedPaletteColorLookupTableDescriptor RedPaletteColorLookupTableData",
        "GreenPaletteColorLookupTableDescriptor GreenPaletteColorLookupTableData",
        "BluePaletteColorLookupTableDescriptor BluePaletteColorLookupTableData",
        "SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence",
    }
)
"""Used to make the slice; of the sequences, the items of these names."""
JUDGED = frozenset({"SOPClassUID Modality ImageType ConversionType BurnedInAnnotation"})
"""Read to decide whether the file may be used, and forgotten."""
HASHED = frozenset({"PatientID SeriesInstanceUID SOPInstanceUID"})
"""Replaced by keyed hashes: the group of a patient, the volume of a series."""

_DATES = frozenset({"DA", "TM", "DT"})
_PEOPLE_AND_PLACES = frozenset({"PN"})
_TEXTS = frozenset({"LO", "LT", "SH", "ST", "UC", "UT", "AS", "UR"})


class Element(Protocol):
    """What there is to know of an attribute without its value."""

    @property
    def keyword(self) -> str: ...  # noqa: D102
    @property
    def vr(self) -> str: ...  # noqa: D102
    @property
    def is_private(self) -> bool: ...  # noqa: D102


def _names(groups: Iterable[str]) -> frozenset[str]:
    return frozenset(name for group in groups for name in group.split())


_KEPT, _JUDGED, _HASHED = _names(KEPT), _names(JUDGED), _names(HASHED)


def action(element: Element) -> str:
    """Return what becomes of an attribute, as the certificate words it."""
    decided = {
        **dict.fromkeys(_KEPT, "kept for the pixels and their geometry"),
        **dict.fromkeys(_JUDGED, "read to judge the file, then dropped"),
        **dict.fromkeys(_HASHED, "replaced by a keyed hash"),
    }.get(element.keyword)
    if element.is_private:
        return "dropped: private"
    return decided or f"dropped: {_kind(element.vr)}"


def _kind(vr: str) -> str:
    if vr in _PEOPLE_AND_PLACES:
        return "name of a person"
    if vr in _DATES:
        return "date or time"
    if vr == "UI":
        return "unique identifier"
    if vr == "SQ":
        return "sequence, with all that is in it"
    return "text" if vr in _TEXTS else "other"


def count_actions(elements: Iterable[Element]) -> Counter[str]:
    """Count what becomes of the attributes of a file."""
    return Counter(action(element) for element in elements)


def pseudonym(key: bytes, kind: str, value: str) -> str:
    """Return 32 hex digits that stand for `value`: HMAC-SHA256 (RFC 2104) with the tenant's key.

    The same value gives the same digits for one tenant, and others for another; without the key
    they tell nothing, and guesses (an ID has few digits) cannot be tried.
    """
    message = f"{kind}\0{value}".encode()
    return hmac.new(key, message, hashlib.sha256).hexdigest()[:32]
