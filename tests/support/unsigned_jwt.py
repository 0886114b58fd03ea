"""JWTs whose signature nobody checks."""

import base64
import json


def unsigned_jwt(claims: object, header: object = None) -> str:
    """A token in JWT's form; the header is that of RS256 where none is given."""
    parts = ({"alg": "RS256"} if header is None else header, claims)
    encoded = (base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
    return ".".join([*encoded, "c2ln"])
