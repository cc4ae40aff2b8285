"""Describe an exported dataset in Croissant 1.0: JSON-LD that says what each file and column is.

https://docs.mlcommons.org/croissant/docs/croissant-spec.html; the context is the one that the
specification asks for.
"""

from collections.abc import Sequence

from pydantic import JsonValue

from models.run_folder import ExportSpec

CONFORMS_TO = "http://mlcommons.org/croissant/1.0"
_CONTEXT: dict[str, JsonValue] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_TYPES = {
    "group": "sc:Integer",
    "source_width": "sc:Integer",
    "source_height": "sc:Integer",
    "row_spacing_mm": "sc:Float",
    "column_spacing_mm": "sc:Float",
    "window_low": "sc:Float",
    "window_high": "sc:Float",
    "window_is_inverted": "sc:Boolean",
    "sixteen_bit_slope": "sc:Float",
    "sixteen_bit_intercept": "sc:Float",
}


def document(
    spec: ExportSpec,
    *,
    digest: str,
    side_px: int,
    table_sha256: str,
    columns: Sequence[str],
    folders: Sequence[str],
    labels: Sequence[str],
) -> dict[str, JsonValue]:
    """Return the description of an export whose `metadata.csv` has the SHA-256 `table_sha256`.

    `folders` are those that hold pictures beside `images`.
    """
    is_synthetic = spec.kind == "synthetic"
    nature = "Synthetic brain MRI slices" if is_synthetic else "Brain MRI slices of patients"
    distribution: list[JsonValue] = [
        {
            "@type": "cr:FileObject",
            "@id": "metadata.csv",
            "name": "metadata.csv",
            "contentUrl": "metadata.csv",
            "encodingFormat": "text/csv",
            "sha256": table_sha256,
        },
        _file_set("images"),
    ]
    distribution += [_file_set(folder) for folder in folders]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": "brain-mri-slices",
        "description": f"{nature}, {side_px} x {side_px} px, 8-bit grey, split by patient group."
        f" Labels: {', '.join(labels)}. Dataset digest {digest}.",
        "version": "1.0.0",
        "keywords": ["MRI", "brain tumour", *(["synthetic"] if is_synthetic else [])],
        "distribution": distribution,
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "slices",
                "name": "slices",
                "description": "One slice a record, as metadata.csv lists them.",
                "key": {"@id": "slices/file_name"},
                "field": [_field(name) for name in columns],
            }
        ],
    }


def _file_set(name: str) -> dict[str, JsonValue]:
    return {
        "@type": "cr:FileSet",
        "@id": name,
        "name": name,
        "encodingFormat": "image/png",
        "includes": f"{name}/*/*.png",
    }


def _field(name: str) -> dict[str, JsonValue]:
    return {
        "@type": "cr:Field",
        "@id": f"slices/{name}",
        "name": name,
        "dataType": _TYPES.get(name, "sc:Text"),
        "source": {"fileObject": {"@id": "metadata.csv"}, "extract": {"column": name}},
    }
