"""The data key that was saved opens with its passphrase alone."""

import json

import pytest

from app.secrecy import Secrecy
from deploy import data_key

PASSPHRASE = "correct horse battery staple"


@pytest.fixture(scope="module")
def saved() -> str:
    return data_key.seal(PASSPHRASE, "5ec4e7")


def test_it_opens_with_its_passphrase(saved: str) -> None:
    assert data_key.open_sealed(PASSPHRASE, saved) == "5ec4e7"
    assert json.loads(saved)["fingerprint"] == Secrecy("5ec4e7").fingerprint()
    assert "5ec4e7" not in saved


def test_it_opens_with_no_other_and_not_when_it_was_changed(saved: str) -> None:
    with pytest.raises(ValueError, match="the passphrase is another"):
        data_key.open_sealed("wrong horse", saved)
    found = json.loads(saved)
    changed = json.dumps(found | {"salt": found["nonce"]})
    with pytest.raises(ValueError, match="the passphrase is another"):
        data_key.open_sealed(PASSPHRASE, changed)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": "other"}'])
def test_what_is_none_is_named(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of JSON, or ours
        data_key.open_sealed(PASSPHRASE, text)


@pytest.mark.parametrize("secret", ["", "two words", 'quoted"', "dollar$"])
def test_a_key_that_could_not_be_put_back_is_not_saved(secret: str) -> None:
    with pytest.raises(ValueError, match="beside letters, digits"):
        data_key.seal(PASSPHRASE, secret)


def test_a_short_passphrase_is_refused() -> None:
    with pytest.raises(ValueError, match="fewer than 12"):
        data_key.seal("elevenchars", "5ec4e7")
