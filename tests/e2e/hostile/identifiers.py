"""Identifiers of an invented patient, planted wherever a hospital's export may hold them."""

import gzip
import io
import struct
import zipfile
from collections.abc import Iterator

import nibabel as nib
import numpy as np
from PIL import Image, ImageDraw, PngImagePlugin
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from tests.e2e.hostile import dicoms, images, niftis, tables
from tests.e2e.hostile.exhibits import encoded, picture, pixels, zipped

NAME, NUMBER, BIRTH = "Zwiebelfisch^Theodulf", "QX-7719-3342", "19410317"
STUDY = "1.2.826.0.1.3680043.8.498.77419933505"
SERIES = "1.2.826.0.1.3680043.8.498.88530044616"
SAID = {
    "patient's name": NAME,
    "patient's number": NUMBER,
    "birth date": BIRTH,
    "accession number": "ACC5588213",
    "study UID": STUDY,
    "series UID": SERIES,
    "institution": "Klinikum Sonnenbluehl",
    "physician": "Federwisch^Oktavia",
    "address": "Kastanienallee 77 Trostheim",
    "telephone": "+49 5512 998877",
    "comments": "Schwiegersohn des Landrats",
    "private element": "PRIVAT-40718-LFD",
    "nested sequence": "Morgenroth^Ueberweiser",
    "series description": "Verlauf nach Zwickmuehle",
    "device's serial number": "SN-MAG-660913",
    "request attributes": "Anforderung-2209-Hirn",
    "overlay": "Beschriftung Nordlicht",
    "curve": "Kurvenblatt Suedwind",
    "shared functional groups": "Vermerk Abendstern",
    "character set": "ISO_IR Zaunkoenig",
    "NIfTI description": "Aufnahme Tannenzapfen",
    "NIfTI extension": "Anhang Bachstelze",
    "NIfTI intent": "Absicht Lerche",
    "NIfTI auxiliary file": "Beifang_Dohle",
    "name inside gzip": "Kuckucksei_Gimpel",
    "PNG text": "Notiz Eisvogel",
    "JPEG EXIF": "Besitzer Haubentaucher",
    "TIFF description": "Bildtext Rohrdommel",
    "array's name": "feld_wiedehopf",
    "comment of the archive": "Grussformel Pirol",
    "comment of an entry": "Randnotiz Stieglitz",
    "manifest's other column": "Spalte Ringeltaube",
    "manifest's group": "Akte-Kernbeisser-12",
    "manifest's bad line": "Zeile Neuntoeter",
    "broken file": "Bruchstueck Wendehals",
    "name of a file": "Befund_Edelweiss",
    "name of a folder": "Mappe_Enzian",
    "name of the archive": "Sicherung_Arnika",
}
"""What identifies, by where it stands."""
NAMES_OF_FILES = ("patient's name", "patient's number", "name of a file", "name of a folder")
"""Those that stand in the names of files, which their owner may read back."""
LABEL = "kontrollklasse"
"""A label, which is meant to stay."""
FOLDER = f"{SAID['name of a folder']}/{NUMBER}"


def archives() -> dict[str, bytes]:
    """Return archives with the identifiers, by what they hold."""
    return {
        "files": _zipped_files(),
        "manifest": zipped(_listed_files()),
        "bad manifest": zipped(_badly_listed_files()),
        "broken": zipped(dict(_broken())),
        "truncated": _zipped_files()[:-30_000],
    }


def _zipped_files() -> bytes:
    files = dict([*_dicom_files(), *_other_files(), *_broken()])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = SAID["comment of the archive"].encode()
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.comment = SAID["comment of an entry"].encode()
            archive.writestr(info, data)
    return buffer.getvalue()


def _slice(seed: int, number: int = 1) -> Dataset:
    """Return an MR slice of the patient, with everything said that has no place of its own."""
    made = dicoms.mr(seed, PatientName=NAME, PatientID=NUMBER, PatientBirthDate=BIRTH)
    made.AccessionNumber, made.StudyInstanceUID = SAID["accession number"], STUDY
    made.SeriesInstanceUID, made.InstanceNumber = SERIES, number
    made.SOPInstanceUID = f"{SERIES}.{seed}"
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.InstitutionName, made.ReferringPhysicianName = SAID["institution"], SAID["physician"]
    made.PatientAddress, made.PatientTelephoneNumbers = SAID["address"], SAID["telephone"]
    made.PatientComments = made.ImageComments = SAID["comments"]
    made.SeriesDescription = made.StudyDescription = SAID["series description"]
    made.DeviceSerialNumber = SAID["device's serial number"]
    made.private_block(0x0029, "GLIA TEST", create=True).add_new(1, "LO", SAID["private element"])
    inner, outer, request = Dataset(), Dataset(), Dataset()
    inner.PersonName = SAID["nested sequence"]
    outer.PurposeOfReferenceCodeSequence = Sequence([inner])
    made.ReferencedStudySequence = Sequence([outer])
    request.ScheduledProcedureStepDescription = SAID["request attributes"]
    made.RequestAttributesSequence = Sequence([request])
    made.add_new(0x60004000, "LT", SAID["overlay"])
    made.add_new(0x60003000, "OW", SAID["overlay"].encode().ljust(512, b"\0"))
    made.add_new(0x50000022, "LO", SAID["curve"])
    made.add_new(0x50003000, "OW", SAID["curve"].encode().ljust(64, b"\0"))
    return made


def _dicom_files() -> Iterator[tuple[str, bytes]]:
    """Put a series, enhanced images and captures in a folder that is the patient's."""
    folder = NAME.replace("^", "_")
    for number in range(3):
        name = f"{FOLDER}/{folder}/{SAID['name of a file']}_{number}.dcm"
        yield name, dicoms.written(_slice(300 + number, number))
    frames = _slice(310)
    frames.NumberOfFrames = 2
    frames.PixelData = b"".join(dicoms.mr(310 + number).PixelData for number in range(2))
    shared, content = Dataset(), Dataset()
    content.FrameComments = SAID["shared functional groups"]
    shared.FrameContentSequence = Sequence([content])
    shared.PatientName = NAME
    frames.SharedFunctionalGroupsSequence = Sequence([shared])
    frames.PerFrameFunctionalGroupsSequence = Sequence([shared, shared])
    yield f"{FOLDER}/{folder}/enhanced.dcm", dicoms.written(frames)
    yield f"{FOLDER}/{folder}/capture.dcm", dicoms.written(_with_text(_slice(320)))
    says_so = _slice(321)
    says_so.BurnedInAnnotation = "YES"
    yield f"{FOLDER}/{folder}/annotated.dcm", dicoms.written(says_so)
    # A picture beside them has the patient for a label, unless somebody notices.
    yield f"{FOLDER}/{folder}/key-image.png", encoded(picture(322))
    yield f"{FOLDER}/{folder}/key-image-again.png", encoded(picture(322))


def _with_text(dataset: Dataset) -> Dataset:
    """Draw a name into larger pixels of 8 bits."""
    image = Image.new("L", (256, 256), 20)
    image.paste(picture(320).resize((128, 128)), (64, 64))
    ImageDraw.Draw(image).text((8, 8), f"{NAME} {BIRTH}", fill=255, font_size=20)
    dataset.Rows = dataset.Columns = 256
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelData = image.tobytes()
    return dataset


def _other_files() -> Iterator[tuple[str, bytes]]:
    folder = f"{FOLDER}/{LABEL}"
    yield f"{folder}/volume.nii.gz", _volume()
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", SAID["PNG text"], zip=False)
    text.add_itxt("Patient", SAID["PNG text"])
    png = encoded(picture(330), pnginfo=text)
    yield f"{folder}/{SAID['name of a file']}.png", png
    yield f"{folder}/again.png", png
    exif = Image.Exif()
    exif[0x013B], exif[0x010E] = SAID["JPEG EXIF"], SAID["JPEG EXIF"]
    jpeg = encoded(picture(331), "JPEG", exif=exif, comment=SAID["JPEG EXIF"].encode())
    yield f"{folder}/photograph.jpg", jpeg
    described = {270: SAID["TIFF description"], 315: SAID["TIFF description"]}
    deep = Image.fromarray(pixels(332).astype(np.uint16) * 99)
    yield f"{folder}/deep.tif", encoded(deep, "TIFF", tiffinfo=described)
    named = {SAID["array's name"]: tables.stack(333)}
    yield f"{folder}/stack.npz", tables.npz(**named)


def _volume() -> bytes:
    image = nib.Nifti1Image(niftis.values(340), np.diag([1.0, 1.0, 5.0, 1.0]))
    extension = nib.nifti1.Nifti1Extension(6, SAID["NIfTI extension"].encode())
    image.header.extensions.append(extension)
    image.header["descrip"] = SAID["NIfTI description"].encode()
    image.header["intent_name"] = SAID["NIfTI intent"].encode()
    image.header["aux_file"] = SAID["NIfTI auxiliary file"].encode()
    image.header["db_name"] = NAME[:17].encode()
    packed = gzip.compress(image.to_bytes())
    name = SAID["name inside gzip"].encode() + b"\0"
    return packed[:3] + bytes([packed[3] | 8]) + packed[4:10] + name + packed[10:]


def _broken() -> Iterator[tuple[str, bytes]]:
    """Have files that cannot be read say who it is where an error might quote it."""
    folder, said = f"{FOLDER}/{LABEL}", SAID["broken file"]
    whole = _slice(350)
    whole.PatientComments = said
    data = dicoms.written(whole)
    yield f"{folder}/truncated.dcm", data[: data.index(said.encode()) + len(said) + 40]
    for keyword in ("InstanceNumber", "NumberOfFrames", "PixelSpacing", "RescaleSlope"):
        yield f"{folder}/bad-{keyword}.dcm", _with_raw_value(351, keyword, said)
    for keyword in ("PhotometricInterpretation", "SpecificCharacterSet"):
        value = SAID["character set"] if keyword == "SpecificCharacterSet" else said
        yield f"{folder}/bad-{keyword}.dcm", _with_raw_value(352, keyword, value)
    syntax = str(whole.file_meta.TransferSyntaxUID).encode() + b"\0"
    other = said.encode()[:16].ljust(len(syntax), b"\0")
    yield f"{folder}/bad-syntax.dcm", data.replace(syntax, other, 1)
    png = encoded(picture(353))
    yield f"{folder}/bad-chunk.png", images.with_chunk(png, b"Wend", said.encode())
    yield f"{folder}/bad-text.png", images.with_chunk(png, b"zTXt", said.encode() + b"\0\7x")
    exif = b"Exif\0\0II*\0\x08\0\0\0\1\0\x0e\1\2\0\xff\xff\0\0" + said.encode()
    yield f"{folder}/bad-exif.jpg", encoded(picture(354), "JPEG", exif=exif)
    yield f"{folder}/letter.png", f"Dear {said}, about {NAME}".encode()
    header = f"{{'descr': '{said}', 'fortran_order': False, 'shape': (64, 64), }}".encode()
    bad = b"\x93NUMPY\1\0" + struct.pack("<H", len(header) + 1) + header + b"\n" + bytes(99)
    yield f"{folder}/bad-array.npz", tables.npz(images=bad)
    nifti = bytearray(niftis.volume(niftis.values(355)))
    nifti[70:72], nifti[148 : 148 + len(said)] = struct.pack("<h", 9999), said.encode()
    yield f"{folder}/bad-volume.nii", bytes(nifti)


def _with_raw_value(seed: int, keyword: str, value: str) -> bytes:
    """Write a value that does not belong there, past all checks of whoever writes."""
    made = _slice(seed)
    placeholder = {
        "InstanceNumber": "7" * 12,
        "NumberOfFrames": "7" * 12,
        "PixelSpacing": "7.0",
        "RescaleSlope": "7" * 16,
        "PhotometricInterpretation": "MONOCHROME7" + " " * 5,
        "SpecificCharacterSet": "ISO_IR 100" + " " * 6,
    }[keyword]
    setattr(made, keyword, [placeholder] * 2 if keyword == "PixelSpacing" else placeholder)
    data = dicoms.written(made)
    element = made[keyword]
    head = struct.pack("<HH2s", element.tag.group, element.tag.elem, element.VR.encode())
    at = data.index(head) + len(head)
    (length,) = struct.unpack_from("<H", data, at)
    told = value.encode().ljust(len(value) + len(value) % 2, b" ")
    return data[:at] + struct.pack("<H", len(told)) + told + data[at + 2 + length :]


def _listed_files() -> dict[str, bytes]:
    column, group = SAID["manifest's other column"], SAID["manifest's group"]
    files = {f"{FOLDER}/{number}.png": encoded(picture(360 + number)) for number in range(3)}
    rows = [f"{path},{LABEL},{group},{column}\n" for path in files]
    absent = f"{FOLDER}/{SAID['name of a file']}_absent.png,{LABEL},{group},{column}\n"
    text = "image,label,group,remark\n" + "".join(rows) + absent
    return files | {"manifest.csv": text.encode()}


def _badly_listed_files() -> dict[str, bytes]:
    bad = SAID["manifest's bad line"]
    text = f'image,label\n{FOLDER}/0.png,"{bad}"; {NAME}"\n{bad},{bad}\n'
    return {f"{FOLDER}/0.png": encoded(picture(370)), "manifest.csv": text.encode()}
