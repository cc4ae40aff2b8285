"""Keep what may name a patient: keyed hashes of it, or its words under a key that no database has.

From one secret of the installation, which lives in the environment and not beside the data, each
tenant gets keys of its own (HKDF-SHA256, RFC 5869). Who holds a dump of the database can neither
read a name of a file nor try whether a patient's number is behind a hash.
"""

import os
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_KEY_BYTES, _NONCE_BYTES, _FINGERPRINT_BYTES = 32, 12, 8
UNREADABLE = "(sealed with another GLIAFORGE_DATA_KEY)"


class Secrecy:
    """The keys of all tenants."""

    def __init__(self, secret: str) -> None:
        """Derive from `secret`; another one opens nothing of this one."""
        self._secret = secret.encode()
        self._cipher = lru_cache(maxsize=256)(
            lambda tenant_id: AESGCM(self._key(tenant_id, "names"))
        )

    def pseudonym_key(self, tenant_id: str) -> bytes:
        """Return the key of the hashes that stand for a tenant's identifiers."""
        return self._key(tenant_id, "pseudonyms")

    def fingerprint(self) -> str:
        """Return what tells this secret from another, and nothing else of it."""
        info = b"gliaforge fingerprint"
        return HKDF(SHA256(), _FINGERPRINT_BYTES, salt=None, info=info).derive(self._secret).hex()

    def seal(self, tenant_id: str, text: str) -> bytes:
        """Encrypt a text with AES-256-GCM (NIST SP 800-38D), nonce in front."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher(tenant_id).encrypt(nonce, text.encode(), None)

    def open(self, tenant_id: str, sealed: bytes) -> str:
        """Decrypt what `seal` returned; `UNREADABLE` if that was done with another secret."""
        try:
            cipher = self._cipher(tenant_id)
            return cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None).decode()
        except (InvalidTag, ValueError):  # the latter for what is shorter than a nonce
            return UNREADABLE

    def _key(self, tenant_id: str, purpose: str) -> bytes:
        info = f"gliaforge {purpose} {tenant_id}".encode()
        return HKDF(SHA256(), _KEY_BYTES, salt=None, info=info).derive(self._secret)
