import hashlib
import hmac
from itertools import product

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.secrecy import UNREADABLE, Secrecy

NAME = "Mustermann/Erika 12.08.1964.dcm \N{SNOWMAN}"


def test_what_was_sealed_opens_again() -> None:
    for text in (NAME, "", "x" * 10_000):
        assert Secrecy("secret").open("t1", Secrecy("secret").seal("t1", text)) == text


def test_a_fingerprint_tells_secrets_apart_and_not_what_they_are() -> None:
    assert Secrecy("secret").fingerprint() == Secrecy("secret").fingerprint()
    assert Secrecy("secret").fingerprint() != Secrecy("secret ").fingerprint()
    assert len(Secrecy("x" * 1000).fingerprint()) == 16
    # HKDF-SHA256 (RFC 5869) written out: extract with a salt of zeros, expand once.
    extracted = hmac.digest(bytes(32), b"secret", "sha256")
    expanded = hmac.digest(extracted, b"gliaforge fingerprint\x01", "sha256")
    assert Secrecy("secret").fingerprint() == expanded[:8].hex()


def test_a_seal_tells_nothing() -> None:
    secrecy = Secrecy("secret")
    first, second = (secrecy.seal("t1", NAME) for _ in range(2))
    assert first != second  # the nonce is new each time
    assert b"Mustermann" not in first
    assert len(first) == 12 + len(NAME.encode()) + 16


def test_another_secret_or_tenant_opens_nothing() -> None:
    sealed = Secrecy("secret").seal("t1", NAME)
    assert Secrecy("another").open("t1", sealed) == UNREADABLE
    assert Secrecy("secret").open("t2", sealed) == UNREADABLE


def test_a_changed_seal_is_not_believed() -> None:
    sealed = Secrecy("secret").seal("t1", NAME)
    for at in range(len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 1
        assert Secrecy("secret").open("t1", bytes(changed)) == UNREADABLE


def test_a_seal_that_is_cut_short_is_unreadable() -> None:
    sealed = Secrecy("secret").seal("t1", NAME)
    for length in (0, 5, 12, 20, len(sealed) - 1):
        assert Secrecy("secret").open("t1", sealed[:length]) == UNREADABLE


def test_each_tenant_has_a_key_of_its_own_for_each_purpose() -> None:
    keys = {
        Secrecy(secret).pseudonym_key(tenant)
        for secret, tenant in product(("secret", "another"), ("t1", "t2"))
    }
    assert len(keys) == 4
    assert {len(key) for key in keys} == {32}
    assert Secrecy("secret").pseudonym_key("t1") == Secrecy("secret").pseudonym_key("t1")
    sealed = Secrecy("secret").seal("t1", "")
    assert (
        AESGCM(Secrecy("secret")._key("t1", "names")).decrypt(sealed[:12], sealed[12:], None) == b""
    )
    assert Secrecy("secret")._key("t1", "names") not in keys


def test_the_key_is_that_of_the_rfc() -> None:
    """HKDF-SHA256 (RFC 5869) without salt, one block: HMAC(HMAC(0, secret), info || 1)."""

    extracted = hmac.digest(bytes(32), b"secret", hashlib.sha256)
    expected = hmac.digest(extracted, b"gliaforge pseudonyms t1\x01", hashlib.sha256)
    assert Secrecy("secret").pseudonym_key("t1") == expected
