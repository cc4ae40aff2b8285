"""Identifiers as they come in: what cannot be one of ours never reaches the database.

In a path a malformed id is answered 404, like one that is unknown; in a body it is malformed.
"""

from typing import Annotated

from pydantic import Field

DatasetID = Annotated[str, Field(pattern=r"^ds_[0-9a-f]{32}$")]
UploadID = Annotated[str, Field(pattern=r"^upl_[0-9a-f]{32}$")]
GeneratorID = Annotated[str, Field(pattern=r"^gen_[0-9a-f]{32}$")]
CheckpointID = Annotated[str, Field(pattern=r"^ckp_[0-9a-f]{32}$")]
SampleBatchID = Annotated[str, Field(pattern=r"^smp_[0-9a-f]{32}$")]
ReportID = Annotated[str, Field(pattern=r"^rpt_[0-9a-f]{32}$")]
ExportID = Annotated[str, Field(pattern=r"^exp_[0-9a-f]{32}$")]
JobID = Annotated[str, Field(pattern=r"^job_[0-9a-f]{32}$")]
APIKeyID = Annotated[str, Field(pattern=r"^key_[0-9a-f]{32}$")]
