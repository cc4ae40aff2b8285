import subprocess
import sys

from models.evaluation.report import Metric, ReportDocument


def test_report_is_described_without_the_sciences() -> None:
    code = (
        "import sys, models.evaluation.report; "
        "assert not {'numpy', 'matplotlib', 'torch'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_schema_names_the_fields_of_a_metric() -> None:
    assert set(Metric.model_fields) == {
        "id",
        "space",
        "label",
        "value",
        "ci",
        "floor",
        "control",
        "excess",
        "n_real",
        "n_generated",
        "n_groups",
        "verdict",
        "reason",
    }
    assert ReportDocument.model_json_schema()["properties"]["schema_version"]["const"] == "1"
