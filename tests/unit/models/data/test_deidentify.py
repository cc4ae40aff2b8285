import hashlib
import pickle
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest
from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from models.data import deidentify, dicom
from models.data.deidentify import action, count_actions, pseudonym
from tests.unit.models.data.dicom_files import dataset, written

KEY = b"key of one tenant"
BYTES = (np.arange(64 * 48).reshape(64, 48) // 16).astype(np.uint8)
SECRET = "SECRET"
NUMBER = 87654321
VALUES: dict[str, object] = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "SH", "ST", "UC", "UR", "UT"), SECRET),
    "PN": f"{SECRET}^{SECRET}",
    **dict.fromkeys(("OB", "OD", "OF", "OL", "OV", "OW", "UN"), SECRET.encode() * 8),
    **dict.fromkeys(("DS", "IS"), str(NUMBER)),
    **dict.fromkeys(("FL", "FD", "SL", "UL", "SV", "UV"), NUMBER),
    **dict.fromkeys(("SS", "US"), 9876),
    "AS": "087Y",
    "AT": 0x87654321,
    "DA": "19870605",
    "DT": "19870605040302",
    "TM": "040302",
    "UI": "1.2.8765.4321",
}
"""One of each value representation but sequences (PS3.5 6.2)."""
USED = deidentify._KEPT | deidentify._JUDGED | deidentify._HASHED


@dataclass(frozen=True)
class Attribute:
    keyword: str
    vr: str
    is_private: bool = False


def told(made: Dataset) -> Dataset:
    """Put every attribute of the standard that is not used into a data set, and private ones."""
    for number, (vr, _, _, _, keyword) in DicomDictionary.items():
        group = number >> 16
        if keyword in USED or not keyword or group <= 2 or group == 0xFFFE:
            continue
        first = vr.split(" or ")[0]
        if first == "SQ":
            item = Dataset()
            item.PatientName, item.PatientBirthDate = f"{SECRET}^{SECRET}", "19870605"
            made.add_new(number, "SQ", Sequence([item]))
        elif first in VALUES:
            made.add_new(number, first, VALUES[first])
    for block in range(3):
        private = made.private_block(0x11 + 2 * block, f"{SECRET} {block}", create=True)
        for at, (vr, one) in enumerate(VALUES.items()):
            private.add_new(at, vr, one)
    return made


def decoded(made: Dataset, key: bytes = KEY) -> dicom.DicomImage:
    return dicom.read(written(made), key, 1 << 20)


def test_nothing_but_what_is_kept_leaves_the_decoder() -> None:
    plain, full = decoded(dataset(BYTES)), decoded(told(dataset(BYTES)))
    assert replace(full, actions=Counter()) == replace(plain, actions=Counter())
    crossing = pickle.dumps(full)
    for trace in (SECRET, "8765", "987", "087Y", "P-0815", "1.2.3"):
        assert trace.encode() not in crossing
    assert NUMBER.to_bytes(4, "little") not in crossing


def test_everything_that_is_dropped_is_counted() -> None:
    made = told(dataset(BYTES))
    actions = decoded(made).actions
    assert actions.total() == len(made)
    assert actions["dropped: private"] == 3 * (len(VALUES) + 1)
    assert actions["replaced by a keyed hash"] == 3
    assert {one.removeprefix("dropped: ") for one in actions if one.startswith("dropped")} == {
        "private",
        "name of a person",
        "date or time",
        "unique identifier",
        "sequence, with all that is in it",
        "text",
        "other",
    }


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        (Attribute("PixelData", "OB or OW"), "kept for the pixels and their geometry"),
        (Attribute("Modality", "CS"), "read to judge the file, then dropped"),
        (Attribute("PatientID", "LO"), "replaced by a keyed hash"),
        (Attribute("PatientName", "PN"), "dropped: name of a person"),
        (Attribute("PatientBirthDate", "DA"), "dropped: date or time"),
        (Attribute("StudyInstanceUID", "UI"), "dropped: unique identifier"),
        (Attribute("ReferencedStudySequence", "SQ"), "dropped: sequence, with all that is in it"),
        (Attribute("PatientAge", "AS"), "dropped: text"),
        (Attribute("PatientWeight", "DS"), "dropped: other"),
        (Attribute("", "UN", is_private=True), "dropped: private"),
        (Attribute("Rows", "US", is_private=True), "dropped: private"),
        (Attribute("OfTheStandardOfTomorrow", "XX"), "dropped: other"),
    ],
)
def test_what_becomes_of_an_attribute(attribute: Attribute, expected: str) -> None:
    assert action(attribute) == expected
    assert count_actions([attribute, attribute]) == {expected: 2}


def test_every_name_on_the_lists_is_of_the_standard_and_on_one_of_them() -> None:
    known = {keyword_for_tag(Tag(number)) for number in DicomDictionary}
    assert known >= USED
    lists = (deidentify._KEPT, deidentify._JUDGED, deidentify._HASHED)
    assert sum(map(len, lists)) == len(USED)


def test_a_pseudonym_is_stable_for_a_tenant_and_differs_between_tenants() -> None:
    one = pseudonym(KEY, "patient", "P-0815")
    assert one == pseudonym(KEY, "patient", "P-0815")
    others = {
        pseudonym(b"key of another tenant", "patient", "P-0815"),
        pseudonym(KEY, "series", "P-0815"),
        pseudonym(KEY, "patient", "P-0816"),
        pseudonym(KEY, "patient", ""),
    }
    assert len(others | {one}) == 5
    assert all(len(each) == 32 and int(each, 16) for each in others | {one})


def test_a_pseudonym_is_the_hmac_of_the_rfc() -> None:
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in KEY.ljust(64, b"\0")) + b"patient\0P").digest()
    outer = hashlib.sha256(bytes(b ^ 0x5C for b in KEY.ljust(64, b"\0")) + inner).hexdigest()
    assert pseudonym(KEY, "patient", "P") == outer[:32]
