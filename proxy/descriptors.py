"""How many connections and requests this process has file descriptors for; the config's figures hold up to that.

A request takes two, its caller's connection and its upstream's; each idle connection takes one. gunicorn and the app
ask here, so that requests are refused with an answer while there are still descriptors to accept them with.
"""

import math
import resource

from loguru import logger

RESERVED = 64  # listeners, log, metrics, the token's file and fetch, the event loop
_REQUESTS_SHARE = 0.3  # of upstreams; as many may lie idle in their pools
_CALLERS_SHARE = 0.4  # more than requests: for idle callers, and to answer 503


def raise_limit(requests: int, connections: int) -> None:
    """Let this process, and those that it forks, have descriptors for so many, as far as this user may.

    No more: a program that a token comes from may look at each one that it could have.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = RESERVED + math.ceil(max(requests / _REQUESTS_SHARE, connections / _CALLERS_SHARE))
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, hard), hard))


def requests_most(wanted: int) -> int:
    return min(wanted, max(1, int(_free() * _REQUESTS_SHARE)))


def idle_most(requests: int, upstreams: int) -> int:
    """Of each upstream's idle connections, where so many requests run at a time: together no more than these."""
    return max(1, requests // upstreams)


def warn_if_fewer(wanted: int) -> None:
    """Say in the log, once for all workers, that a worker serves fewer requests at a time than it was told to."""
    most, limit = requests_most(wanted), resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if most < wanted:
        text = "server.max_concurrent_requests: {} in place of {}, as a worker has {} file descriptors (RLIMIT_NOFILE)"
        logger.warning(text, most, wanted, limit)


def connections_most(wanted: int) -> int:
    """From callers, with requests and without."""
    return min(wanted, max(2, int(_free() * _CALLERS_SHARE)))


def _free() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVED
