"""The packed dataset of the unit tests, for tests that start processes of `models`."""

from tests.unit.models.conftest import write_pack

__all__ = ["write_pack"]
