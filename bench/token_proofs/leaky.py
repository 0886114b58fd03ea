"""What could let a secret slip: a source that fails with the secret in its error, and objects that hold one, printed.

`leaks` runs this file as a process of its own and searches all that it writes.
"""

import copy
import os
import pickle
import sys
import traceback

from loguru import logger

from config import SecretRef, load
from proxy.observability.logging import set_up
from proxy.tokens.sources.base import Grant
from proxy.tokens.token import Token


def fetch(secret: str) -> str:
    """A token function as an operator may write it: its error quotes the secret."""
    raise ValueError(f"the vault refused {secret}")


def _fail_with(token: Token, grant: Grant, secret: SecretRef) -> None:
    value = token.value  # in the frame when it fails, as in any code that sends it
    assert value != grant.access_token != secret.reveal() != value
    raise RuntimeError("a bug with secrets in its frame")


def main() -> None:
    set_up(level="TRACE", stream=sys.stdout)
    token, grant, secret = os.environ["MARKED"].split()
    held = Token(token, fetched_at=0.0, lifetime_s=300.0, generation=1)
    granted, reference = Grant(grant, 300.0), SecretRef(text=secret)
    for thing in (held, granted, reference, load()):
        print(repr(thing), str(thing), f"{thing}", [thing], {"thing": thing})
        try:
            print(pickle.dumps(copy.copy(thing)) if thing is not granted else "")
        except Exception as error:
            traceback.print_exception(error, file=sys.stdout)
    try:
        _fail_with(held, granted, reference)
    except RuntimeError as error:
        logger.exception("a bug")
        logger.opt(exception=error).trace("with {}, {} and {}", held, granted, reference)
        traceback.print_exception(error, file=sys.stdout)


if __name__ == "__main__":
    main()
