from typing import Any

import pytest
from jinja2 import UndefinedError

from app import pages
from models.config import IngestConfig
from models.data import certificate
from models.data.judging import Judge
from models.run_folder import IngestSummary

HOSTILE = "<script>x</script>\"'&"


@pytest.fixture
def document() -> dict[str, Any]:
    """The certificate of an ingest whose labels and reasons are a stranger's."""
    judge = Judge({}, IngestConfig(), file_count=1234)
    judge.reasons[HOSTILE] = 1200
    judge.remarks[HOSTILE] = 7
    summary = IngestSummary(
        image_count=34,
        duplicate_count=0,
        rejected_count=1200,
        quarantined_count=0,
        group_count=5,
        labels={HOSTILE: 34},
        splits={"train": {HOSTILE: 34}},
        packs={},
        mask_count=0,
        has_sixteen_bits=False,
        digest="d" * 64,
    )
    across = {"compared": 9, "same_picture": 2, "nearly_the_same": 3}
    return certificate.document(judge, summary, judge.config, across)


def page(document: dict[str, Any], *, keeps_original: bool = False) -> str:
    return pages.certificate(
        document,
        name=HOSTILE,
        dataset_id="ds_1",
        sealed_at="2026-11-26 12:00 UTC",
        keeps_original=keeps_original,
    )


def test_what_is_from_outside_is_escaped(document: dict[str, Any]) -> None:
    shown = page(document)
    assert "<script" not in shown
    assert shown.count("&lt;script&gt;x&lt;/script&gt;&#34;&#39;&amp;") == 6


def test_the_numbers_of_the_certificate_are_shown(document: dict[str, Any]) -> None:
    shown = page(document)
    for fact in ("1,234 files", "1,200", "2026-11-26 12:00 UTC", "ds_1", "d" * 64, "5 groups"):
        assert fact in shown


def test_the_page_fetches_nothing(document: dict[str, Any]) -> None:
    shown = page(document)
    assert not any(one in shown for one in ("http:", "https:", "src=", "url(", "@import"))


def test_it_says_whether_the_original_is_kept(document: dict[str, Any]) -> None:
    assert "is removed when the ingest has ended" in page(document)
    assert "is kept, as was asked for" in page(document, keeps_original=True)


def test_a_certificate_with_a_part_missing_is_an_error_and_no_page(
    document: dict[str, Any],
) -> None:
    del document["groups"]["rule"]
    with pytest.raises(UndefinedError, match="rule"):
        page(document)
