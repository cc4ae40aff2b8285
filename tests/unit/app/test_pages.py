import base64
import importlib
import re
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from jinja2 import UndefinedError
from PIL import Image, ImageFile

from app import comparison, pages
from app.errors import NotInstalledError
from app.main import create_app
from models.config import IngestConfig
from models.data import certificate
from models.data.judging import Judge
from models.evaluation.report import Axis, Light, Metric, ReportDocument
from models.evaluation.thresholds import THRESHOLDS
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


def test_it_says_what_used_files_are_where_there_are_some(document: dict[str, Any]) -> None:
    assert "which become no images" not in page(document)
    document["files"]["verdicts"]["used"] = 3
    assert "Used are masks and the manifest, which become no images." in page(document)


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


@pytest.fixture
def measured() -> dict[str, Any]:
    """A report whose labels and reasons are a stranger's."""
    verdict = {"verdict": "red", "reason": HOSTILE}
    metric = Metric(
        id="coverage",
        space="texture-v1",
        label=HOSTILE,
        value=0.25,
        ci=(0.2, 0.3),
        floor=None,
        control=None,
        excess=None,
        n_real=3,
        n_generated=4,
        n_groups=2,
        verdict=Light.AMBER,
        reason=HOSTILE,
    )
    document = ReportDocument.model_validate(
        {
            "profile": "standard",
            "verdicts": {Axis.COPIES: verdict},
            "uses": {"augment": verdict, "share": verdict, "demonstrate": verdict},
            "checks": [{"id": "constant", "value": 0, "verdict": "green", "reason": "none"}],
            "metrics": [metric],
            "explanations": [
                {
                    "space": "texture-v1",
                    "label": HOSTILE,
                    "feature": "sharpness",
                    "effect_size": -1.234,
                    "direction": "generated images have less sharpness",
                }
            ],
            "limits": [HOSTILE],
            "method": {
                "foreground": "above",
                "foreground_threshold": 9,
                "resampling": "halves",
                "mix": {},
                "control": "gamma",
                "seed": 0,
            },
            "config": {},
            "thresholds": THRESHOLDS,
            "spaces": ["texture-v1"],
            "counts": {
                "training": {HOSTILE: 7},
                "holdout": {HOSTILE: 3},
                "holdout_groups": {HOSTILE: 2},
                "generated": {HOSTILE: 4},
                "generated_unusable": 0,
            },
            "image_size_px": 64,
            "dataset_digest": "d" * 64,
            "software": {"numpy": "2"},
        }
    )
    shown: dict[str, Any] = document.model_dump(mode="json")
    return shown


def report_page(
    measured: dict[str, Any],
    *plots: str,
    left_out: tuple[str, ...] = ("closest",),
) -> str:
    return pages.report(
        measured,
        dict.fromkeys(plots or ("generated",), b"png"),
        report_id="rpt_1",
        about="smp_1",
        real_dataset_id="ds_1",
        measured_at="2026-11-26 10:00 UTC",
        left_out=left_out,
    )


def test_report_is_one_page_without_a_script(measured: dict[str, Any]) -> None:
    html = report_page(measured)
    assert "<script" not in html
    assert "http" not in html.replace("http-equiv", "")
    assert 'src="data:image/png;base64,cG5n"' in html
    assert html.count("<img") == html.count("<img alt=") == 1
    assert "4 synthetic images beside 3 real ones" in html
    assert "<code>smp_1</code> beside dataset <code>ds_1</code>" in html
    assert "Left out of this page: the images of patients." in html
    assert "✗ red" in html


def test_report_says_what_was_known_of_the_batch(measured: dict[str, Any]) -> None:
    assert "when it was drawn" not in report_page(measured)
    html = report_page(measured | {"notes": ["not fit for use: <b>too much alike</b>"]})
    assert "<li>not fit for use: &lt;b&gt;too much alike&lt;/b&gt;</li>" in html
    assert html.index("not fit for use") < html.index("Verdict of each axis")


def test_features_without_a_name_are_counted(measured: dict[str, Any]) -> None:
    def one(feature: str) -> dict[str, object]:
        direction = f"generated images have more {feature}"
        shown: dict[str, object] = {"space": "s", "label": None, "effect_size": 1.0}
        return shown | {"feature": feature, "direction": direction}

    html = report_page(measured | {"explanations": [one("feature 7"), one("contrast")]})
    assert "more contrast" in html
    assert "feature 7" not in html
    assert "1 more are features of a network" in html


def test_report_says_that_it_shows_patients(measured: dict[str, Any]) -> None:
    assert "shows images of patients" not in report_page(measured)
    for plot in ("closest", "real-0"):
        assert "shows images of patients" in report_page(measured, plot, left_out=())


def test_real_slices_stand_beside_synthetic_ones(measured: dict[str, Any]) -> None:
    measured["strips"] = [HOSTILE, "glioma"]
    plots = ("generated", "real-0", "synthetic-0", "synthetic-1")
    html = report_page(measured, *plots, left_out=())
    assert html.count("<img") == html.count("<img alt=") == 4
    assert "<script" not in html
    assert 'alt="Synthetic slices, label glioma, chosen at random."' in html
    first, second = html.split('<div class="strip">')[1:]
    assert first.index("real (holdout)") < first.index("<figcaption>synthetic")
    assert "There is none." not in first
    assert "There is none." in second  # of a label of which nothing is unseen
    assert html.index('class="strip"') < html.index("Verdict of each axis")


def test_page_without_real_slices_says_that_they_are_left_out(measured: dict[str, Any]) -> None:
    measured["strips"] = ["glioma"]
    html = report_page(measured, "synthetic-0", left_out=("closest", "real-0"))
    (strip,) = html.split('<div class="strip">')[1:]
    assert "<p>Left out of this page.</p>\n<figcaption>real (holdout)" in strip
    assert strip.count("Left out of this page.") == 1
    assert "Left out of this page: the images of patients.</p>" in html
    both = report_page(measured, "intensity", left_out=("real-0", "synthetic-0"))
    assert "the images of patients and the synthetic ones, since copies" in both
    assert '<div class="strip">' not in both  # of which nothing would be seen


def test_report_says_what_gives_the_images_away(measured: dict[str, Any]) -> None:
    html = report_page(measured)
    assert "What gives them away" in html
    assert "<td>have less sharpness</td>" in html
    assert '<td class="number">-1.23</td>' in html
    del measured["explanations"]  # a report of before there were any
    assert "What gives them away" not in report_page(measured)


@pytest.fixture
def curve() -> dict[str, Any]:
    points = [
        {"share": share, "images": 9, "groups": 3, "alone": HOSTILE, "together": HOSTILE}
        for share in (0.25, 1.0)
    ]
    return {"points": points, "summary": f"It is seen {HOSTILE}", "caution": "It is not said."}


def test_learning_curve_is_shown_with_what_it_says(
    measured: dict[str, Any], curve: dict[str, Any]
) -> None:
    measured["learning_curve"] = curve
    html = report_page(measured, "learning_curve", left_out=())
    assert html.count("<img") == html.count("<img alt=") == 1
    assert "learnt from 25 %, 100 % of the training patients" in html
    assert "<p>It is seen " in html
    assert "It is not said.</p>" in html
    assert "<script" not in html
    assert "shows images of patients" not in html


def test_report_without_a_learning_curve_says_nothing_of_one(measured: dict[str, Any]) -> None:
    assert "fewer patients" not in report_page(measured)
    del measured["learning_curve"]  # a report of before there was any
    assert "fewer patients" not in report_page(measured)


def test_report_of_before_the_learning_curve_is_compared_with_a_later_one(
    measured: dict[str, Any], curve: dict[str, Any]
) -> None:
    earlier = {name: value for name, value in measured.items() if name != "learning_curve"}
    added = measured["metrics"][0] | {"id": "auroc", "space": "classifier/real (25 % of ...)"}
    later = measured | {"learning_curve": curve, "metrics": [*measured["metrics"], added]}
    side = {"id": "rpt_1", "sample_batch_id": "smp_1", "synthetic_dataset_id": None}
    for a, b in ((earlier, later), (later, earlier)):
        found = comparison.compare(a, b)
        assert [one["change"] for one in found["metrics"]] == ["no detectable difference", None]
        html = pages.comparison(found, a, {"a": side, "b": side})
        assert "auroc<br><small>classifier/real (25 % of ...)</small>" in html


def test_report_of_before_there_were_thresholds_is_shown(measured: dict[str, Any]) -> None:
    del measured["thresholds"], measured["spaces"]
    assert "none in this profile" in report_page(measured)


def test_docs_show_every_operation_and_resolve_every_link() -> None:
    document = create_app().openapi()
    page = pages.docs(document)
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert f'id="{operation["operationId"]}"' in page, path
    links = set(re.findall(r'href="#([^"]+)"', page))
    assert links <= set(re.findall(r'id="([^"]+)"', page))
    assert "NewGenerator" in links
    assert "Make nothing: say what it would take" in page


def test_docs_fetch_nothing_and_run_nothing() -> None:
    page = pages.docs(create_app().openapi())
    assert "<script" not in page
    assert re.findall(r'(?:src|href)="(?!#|openapi\.json)', page) == []


def test_docs_escape_what_a_document_says() -> None:
    operation = {"operationId": "x", "tags": [HOSTILE], "responses": {}, "summary": HOSTILE}
    document = {
        "info": {"title": HOSTILE, "version": "1"},
        "paths": {HOSTILE: {"get": operation}},
        "components": {"schemas": {"X": {"description": HOSTILE, "examples": [HOSTILE]}}},
    }
    assert "<script" not in pages.docs(document)


@pytest.fixture
def printer() -> None:
    try:
        importlib.import_module("weasyprint")
    except OSError:
        pytest.skip("the system has no Pango")
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False


@pytest.mark.usefixtures("printer")
def test_page_is_printed_with_what_is_in_it_and_nothing_from_outside(tmp_path: Path) -> None:
    path = tmp_path / "dot.png"
    Image.new("L", (8, 8), 100).save(path)
    inside = base64.b64encode(path.read_bytes()).decode()
    with_image = pages.pdf(f'<p>Hello</p><img src="data:image/png;base64,{inside}">')
    without = pages.pdf(f'<p>Hello</p><img src="{path.as_uri()}">')
    assert with_image.startswith(b"%PDF-")
    assert b"/Image" in with_image
    assert b"/Image" not in without


@pytest.mark.parametrize("is_installed", [True, False])
def test_printer_leaves_pillow_as_strict_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
    is_installed: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as WeasyPrint does
    monkeypatch.setitem(sys.modules, "weasyprint", MagicMock() if is_installed else None)
    with nullcontext() if is_installed else pytest.raises(NotInstalledError):
        pages.pdf("<p>Hello</p>")
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_pdf_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    with pytest.raises(NotInstalledError, match="the extra `pdf`"):
        pages.pdf("<p>Hello</p>")
