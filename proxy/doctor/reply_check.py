"""What a token endpoint replied, line by line: the request, the reply's shape, the clock. Never a value of it."""

from email.utils import parsedate_to_datetime

from proxy.doctor.fetch import Attempt
from proxy.doctor.foreign_text import ForeignText, media_type
from proxy.doctor.issuer_causes import no_json_cause, no_reply_cause, oauth_error, status_cause
from proxy.doctor.reply_shape import Outline, likely_token, outline_of
from proxy.doctor.report import Report, in_milliseconds, in_words
from proxy.tokens.sources.base import TokenFetchError
from proxy.tokens.sources.endpoint import Reply
from proxy.tokens.sources.reply import ReplyShape

# A Date has whole seconds, and a reply is some time on its way.
CLOCKS_AGREE_S = 1.5
SKEW_MOST_S = 5.0


def report_reply(
    report: Report,
    attempt: Attempt,
    error: TokenFetchError | None,
    shape: ReplyShape,
    foreign: ForeignText,
    *,
    sends_instants: bool,
) -> Outline | None:
    """The lines from the request to the token, and the clock; the reply's outline where it is JSON.

    `sends_instants`: the request holds times of this host's clock, as a signed assertion does (RFC 7523 §3).
    """
    reply = attempt.reply
    took = in_milliseconds(attempt.took_s)
    if reply is None:
        report.fail("request", f"{error} ({took}){no_reply_cause(str(error))}")
        return None
    text = f"{reply.status} in {took}, {media_type(reply.fields.get('Content-Type'))}, {len(reply.body)} bytes"
    outline = None
    if 200 <= reply.status < 300:
        report.ok("request", text)
        outline = _report_outline(report, reply, foreign)
        if outline is not None:
            _report_token(report, attempt, error, shape.token, outline)
    else:
        report.fail("request", f"{text}: {status_cause(reply)}")
    _report_clock(report, attempt, matters=sends_instants or shape.expires_at is not None)
    return outline


def _report_outline(report: Report, reply: Reply, foreign: ForeignText) -> Outline | None:
    try:
        outline = outline_of(reply.body, foreign.name)
    except ValueError:
        report.fail("reply", f"it is no JSON: {no_json_cause(reply)}")
        return None
    shown = ", ".join(f"{pointer or 'the whole'} {kind}" for pointer, kind in outline.pointers.items())
    odd = f"; {outline.odd_names} members with odd names" if outline.odd_names else ""
    more = "; there is more" if outline.is_cut else ""
    report.ok("reply", (shown or "an object") + odd + more)
    return outline


def _report_token(
    report: Report, attempt: Attempt, error: TokenFetchError | None, pointer: str, outline: Outline
) -> None:
    """Whether a JSON reply of 2xx brought a token, and if not, why."""
    where = pointer or "the top"
    if attempt.grant is not None:
        report.ok("token", f"at {where}")
        return
    refusal = None if attempt.reply is None else oauth_error(attempt.reply)
    if refusal is not None:
        report.fail("token", f"{error}; the reply is an error: {refusal}")
        return
    elsewhere = None if outline.pointers.get(pointer) == "string" else likely_token(outline, pointer)
    hint = f"; a string is at {elsewhere}: token_pointer (type http_json) should say so" if elsewhere else ""
    report.fail("token", f"{error}{hint}")


def _report_clock(report: Report, attempt: Attempt, *, matters: bool) -> None:
    """The issuer's clock against this host's, by the reply's Date (RFC 9110 §6.6.1)."""
    date = _date(attempt.reply)
    if date is None:
        report.skip("clock", "the reply has no Date, so the issuer's clock cannot be compared with this host's")
        return
    skew_s = date - attempt.replied_at
    if abs(skew_s) <= CLOCKS_AGREE_S:
        report.ok("clock", "the issuer's and this host's agree to the second")
        return
    text = f"the issuer's is {in_words(abs(skew_s))} {'ahead of' if skew_s > 0 else 'behind'} this host's"
    if matters and abs(skew_s) > SKEW_MOST_S:
        report.warn("clock", f"{text}: one of them is wrong, and instants go from one to the other; see NTP on both")
    else:
        report.ok("clock", f"{text}; lifetimes are counted from the request, so nothing depends on it here")


def _date(reply: Reply | None) -> float | None:
    try:
        return None if reply is None else parsedate_to_datetime(reply.fields["Date"]).timestamp()
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
