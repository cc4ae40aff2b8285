"""Encrypt the data key with a passphrase, or decrypt it again; deploy/data-key.sh hands it over.

The passphrase is the first line of standard input; `open` takes the sealed key in the lines after
it. Scrypt (RFC 7914) makes a key of the passphrase, AES-256-GCM seals with it.
"""
# ruff: noqa: INP001 - a script

import json
import os
import re
import sys
from base64 import b64decode, b64encode

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from app.secrecy import Secrecy
from app.settings import settings

FORMAT = "gliaforge data key 1"
SALT_BYTES, NONCE_BYTES, KEY_BYTES = 16, 12, 32
COST, BLOCKS, LANES = 1 << 17, 8, 1
"""128 MiB and half a second for each guess."""
SHORTEST = 12
_KEY = re.compile(r"[A-Za-z0-9+/=_.-]+")
"""What stands in .env as it is, without quotes."""


def seal(passphrase: str, secret: str) -> str:
    """Return the secret, sealed, as JSON with its fingerprint.

    Raises:
        ValueError: if the passphrase is shorter than `SHORTEST`, or the secret could not be put
            back into .env.
    """
    if not _KEY.fullmatch(secret):
        raise ValueError("the key has characters beside letters, digits and +/=_.-")
    if len(passphrase) < SHORTEST:
        raise ValueError(f"a passphrase of fewer than {SHORTEST} characters can be guessed")
    salt, nonce = os.urandom(SALT_BYTES), os.urandom(NONCE_BYTES)
    sealed = AESGCM(_key(passphrase, salt)).encrypt(nonce, secret.encode(), FORMAT.encode())
    parts = {"salt": salt, "nonce": nonce, "sealed": sealed}
    texts = {name: b64encode(part).decode() for name, part in parts.items()}
    return json.dumps({"format": FORMAT, "fingerprint": Secrecy(secret).fingerprint(), **texts})


def open_sealed(passphrase: str, text: str) -> str:
    """Return the secret that `seal` sealed.

    Raises:
        ValueError: if it is none, or of another passphrase.
    """
    found = json.loads(text)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError("this is no data key that was saved")
    salt, nonce, sealed = (b64decode(found[name]) for name in ("salt", "nonce", "sealed"))
    try:
        return AESGCM(_key(passphrase, salt)).decrypt(nonce, sealed, FORMAT.encode()).decode()
    except InvalidTag:
        raise ValueError("the passphrase is another, or the file is damaged") from None


def _key(passphrase: str, salt: bytes) -> bytes:
    return Scrypt(salt, KEY_BYTES, COST, BLOCKS, LANES).derive(passphrase.encode())


def main(arguments: list[str]) -> None:
    """Do what the only argument says."""
    passphrase, _, rest = sys.stdin.read().partition("\n")
    try:
        match arguments:
            case ["seal"]:
                print(seal(passphrase, settings().data_key.get_secret_value()))  # noqa: T201
            case ["open"]:
                print(open_sealed(passphrase, rest))  # noqa: T201
            case _:
                raise SystemExit(__doc__)
    except (ValueError, KeyError) as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main(sys.argv[1:])
