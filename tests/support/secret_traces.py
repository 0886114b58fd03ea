"""What a secret looks like where it must not be: as it is, URL-encoded, and in base64 alone or within more."""

import base64
from collections.abc import Iterable
from urllib.parse import quote

LEAST_CHARS = 8  # the base64 of less is found in any long text


def traces_of(secret: str) -> set[bytes]:
    """Every form of it that is searched for; in base64 by its three positions, so that `user:secret` is found too."""
    assert len(secret) >= LEAST_CHARS, "too short to be told from other text"
    raw = secret.encode()
    percent = "".join(f"%{byte:02X}" for byte in raw)
    plain = {raw, quote(secret, safe="").encode(), percent.encode(), percent.lower().encode()}
    return plain.union(*(_in_base64(raw, before) for before in range(3)))


def found_in(text: bytes, secrets: Iterable[str]) -> list[str]:
    """The start of each secret that the text shows in some form; enough to know it by, and no more."""
    return [f"{secret[:4]}…" for secret in secrets if any(trace in text for trace in traces_of(secret))]


def _in_base64(raw: bytes, before: int) -> set[bytes]:
    """The characters that depend on the secret alone where so many bytes stand before it."""
    bits = 8 * (before + len(raw))
    part = slice(-(-8 * before // 6), bits // 6)
    padded = b"\0" * before + raw
    return {base64.b64encode(padded)[part], base64.urlsafe_b64encode(padded)[part]}
