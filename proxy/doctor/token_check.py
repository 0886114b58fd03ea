"""One token source, step by step: the way to it, the fetch, the reply, the token's life, and where the token went."""

import ssl

from config import sources as sections
from config.schema import TokenStore
from config.sources import TokenSource
from proxy.doctor.fetch import Attempt, Fetched, LockLost, fetch_and_publish
from proxy.doctor.foreign_text import ForeignText
from proxy.doctor.life_check import report_life
from proxy.doctor.network import check_way, shown_url
from proxy.doctor.reply_check import report_reply
from proxy.doctor.report import Report, in_milliseconds, in_words
from proxy.token_sources import build_source, build_store, is_single_active
from proxy.tokens.sources.base import TokenFetchError
from proxy.tokens.sources.endpoint import CONNECT_TIMEOUT_S
from proxy.tokens.sources.reply import ReplyShape
from proxy.tokens.stores.base import Store
from proxy.tokens.stores.memory import MemoryStore
from proxy.tokens.token import Token, boot_clock
from proxy.upstreams.tls import client_context

# Those that ask a token endpoint; the others find their token on this host.
_OverHttp = sections.HttpJsonSource | sections.OAuthClient


def check_source(
    report: Report, name: str, section: TokenSource, token_store: TokenStore, foreign: ForeignText
) -> Token | None:
    """The token to try upstreams with: the one just fetched, else one that the store holds, else None."""
    where = f", {shown_url(_url(section))}" if isinstance(section, _OverHttp) else ""
    report.heading(f"token source {name} ({section.type}{where})")
    store = build_store(section, token_store)
    store.load()  # by that it learns whether it reaches those that it shares with
    check = _SourceCheck(report, section, store, foreign)
    token = (check.fetched() if check.may_fetch() else None) or check.held()
    if token is not None:
        foreign.hide(token.value)
    return token


class _SourceCheck:
    def __init__(self, report: Report, section: TokenSource, store: Store, foreign: ForeignText) -> None:
        self._report = report
        self._section = section
        self._store = store
        self._foreign = foreign
        self._single_active = is_single_active(section)

    def may_fetch(self) -> bool:
        """Whether there is a way to ask, and no harm in it."""
        if isinstance(self._section, _OverHttp) and not _check_way(self._report, self._section):
            self._report.skip("request", "there is no way to send one")
            return False
        if self._single_active and not self._store.is_shared:
            harm = "a new token would end the one that the proxy sends"
            self._report.fail("store", f"it cannot be shared now, and {harm}: nothing was fetched")
            return False
        return True

    def fetched(self) -> Token | None:
        """A new token, and the lines about how it was got and where it went; None where none was."""
        attempt = Attempt()
        source = build_source(self._section, attempt.observe)
        may_go_unpublished = not self._single_active
        try:
            fetched = fetch_and_publish(
                lambda: attempt.fetch(source), self._store, may_go_unpublished=may_go_unpublished
            )
        except LockLost:
            self._report.fail("store", "another process keeps its lock: nothing was fetched; try again in a minute")
            return None
        except TokenFetchError as error:
            self._report_attempt(attempt, error)
            return None
        finally:
            source.close()
        self._report_attempt(attempt, None)
        self._report_store(fetched)
        return fetched.token

    def held(self) -> Token | None:
        """What the running proxy goes on with after a failed fetch."""
        now = boot_clock()
        token = self._store.load().usable_token(now)
        if token is None:
            self._report.skip("store", "it holds no usable token to try the upstreams with")
            return None
        what = f"token {token.fingerprint}, usable for {in_words(token.usable_until - now)}"
        self._report.ok("store", f"it holds {what}: the upstreams are tried with it")
        return token

    def _report_attempt(self, attempt: Attempt, error: TokenFetchError | None) -> None:
        shape = outline = None
        if isinstance(self._section, _OverHttp):
            shape = _shape(self._section)
            signs = getattr(self._section, "auth_method", None) == "private_key_jwt"
            outline = report_reply(self._report, attempt, error, shape, self._foreign, sends_instants=signs)
        elif attempt.grant is None:
            self._report.fail("fetch", f"{error} ({in_milliseconds(attempt.took_s)})")
        else:
            self._report.ok("fetch", in_milliseconds(attempt.took_s))
        if attempt.grant is None:
            return
        report_life(self._report, attempt.grant, attempt.reply, shape, outline)
        if error is not None:
            self._report.fail("lifetime", str(error))

    def _report_store(self, fetched: Fetched) -> None:
        report, name = self._report, f"token {fetched.token.fingerprint}"
        if fetched.where == "published":
            report.ok("store", f"{name} is published: the proxy sends it within 30 s, or once the old one is refused")
        elif fetched.where == "held already":
            report.ok("store", f"the issuer gave {name}, which is held already")
        elif fetched.where == "lock lost":
            report.warn("store", f"another process keeps its lock: {name} is for this run alone")
        elif isinstance(self._store, MemoryStore):
            report.skip("store", f"each worker keeps a token of its own: {name} is for this run alone")
        else:
            report.warn("store", f"it cannot be shared now: {name} does not reach the other hosts")


def _check_way(report: Report, section: _OverHttp) -> bool:
    def tls_context() -> ssl.SSLContext:
        return client_context(section.ca_bundle, section.client_cert)

    return check_way(report, _url(section), tls_context, connect_s=CONNECT_TIMEOUT_S)


def _url(section: _OverHttp) -> str:
    return section.url if isinstance(section, sections.HttpJsonSource) else section.token_url


def _shape(section: _OverHttp) -> ReplyShape:
    """Where the source looks in a reply."""
    if isinstance(section, sections.HttpJsonSource):
        return ReplyShape(section.token_pointer, section.expires_in_pointer, section.expires_at_pointer)
    return ReplyShape()
