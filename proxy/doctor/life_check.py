"""How long the token lives and who says so: the reply, the token's own claims, or the config's default."""

import math
import time

import jiter

from proxy.doctor.jwt_times import JwtTimes, read_jwt
from proxy.doctor.reply_shape import Outline, likely_expiry
from proxy.doctor.report import Report, in_words
from proxy.tokens import schedule
from proxy.tokens.sources.base import Grant
from proxy.tokens.sources.endpoint import Reply
from proxy.tokens.sources.reply import ReplyShape, has_value

# What clocks that are kept by NTP may differ by.
AHEAD_MOST_S = 1.0
# Of what an issuer says beyond the token's own end; less is rounding.
TOLD_TOO_LONG_S = 5.0


def report_life(
    report: Report, grant: Grant, reply: Reply | None, shape: ReplyShape | None, outline: Outline | None
) -> None:
    """`reply`, `shape` and `outline` are of a token endpoint; a token from this host comes without."""
    jwt = read_jwt(grant.access_token)
    if math.isinf(grant.lifetime_s):
        report.ok("lifetime", "it does not expire")
    elif reply is None or shape is None:
        report.ok("lifetime", _life(grant))
    else:
        _report_origin(report, grant, reply, shape, outline, jwt)
    if jwt is not None:
        _report_jwt(report, grant, jwt, time.time())


def _life(grant: Grant) -> str:
    earliest, latest = (schedule.renewal_age_s(grant.lifetime_s, jitter) for jitter in (1.0, 0.0))
    return f"{in_words(grant.lifetime_s)}, renewed at an age of {in_words(earliest)} to {in_words(latest)}"


def _report_origin(
    report: Report, grant: Grant, reply: Reply, shape: ReplyShape, outline: Outline | None, jwt: JwtTimes | None
) -> None:
    """In the order of read_grant: what the reply says, the claims, the default."""
    pointer = shape.expires_at or shape.expires_in
    if pointer is not None and has_value(jiter.from_json(reply.body), pointer):
        by = f"by {pointer}" if shape.expires_at is None else f"by {pointer} minus the reply's Date"
        report.ok("lifetime", f"{_life(grant)}; {by}")
        return
    elsewhere = likely_expiry(outline, pointer or "") if outline is not None else None
    hint = f"; {elsewhere} looks like one: set expires_in_pointer or expires_at_pointer to it" if elsewhere else ""
    if jwt is not None and jwt.lifetime_s is not None:
        report.ok("lifetime", f"{_life(grant)}; by the token's own claims, exp - iat{hint}")
        return
    missing = "no expiry pointer is set" if pointer is None else f"the reply has no expiry at {pointer}"
    report.warn("lifetime", f"{_life(grant)}; by default_lifetime_s, as {missing}{hint}")


def _report_jwt(report: Report, grant: Grant, jwt: JwtTimes, now: float) -> None:
    life_s = jwt.lifetime_s
    what = f"{jwt.algorithm}, " + ("no exp - iat" if life_s is None else f"exp - iat is {in_words(life_s)}")
    for claim, instant in (("nbf", jwt.not_before), ("iat", jwt.issued_at)):
        if instant is not None and instant - now > AHEAD_MOST_S:
            ahead = in_words(instant - now)
            report.warn("JWT", f"{what}; its {claim} lies {ahead} in the future of this host's clock: see NTP on both")
            return
    if jwt.expires_at is not None and now >= jwt.expires_at:
        report.warn("JWT", f"{what}; it ended {in_words(now - jwt.expires_at)} ago by this host's clock")
    elif jwt.expires_at is not None and grant.lifetime_s > jwt.expires_at - now + TOLD_TOO_LONG_S:
        report.warn("JWT", f"{what}; it ends before the lifetime above: the upstream may refuse it early")
    else:
        report.ok("JWT", what)
