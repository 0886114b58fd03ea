"""gunicorn's settings, read by name: `gunicorn wsgi:app`. config.yaml decides what it can."""

import gc
import sys

from config import ConfigError, load_or_keep


def _patch(settings):
    """Before anything else is imported: a lock or a socket made earlier would block the whole worker."""
    if settings.server.worker_class == "gevent":
        from gevent import monkey

        monkey.patch_all()


def _adapter_faults(settings):
    """Adapters are imported here already: one that has gone bad must not end workers, and with them the server."""
    if all(upstream.adapter is None for upstream in settings.upstreams):
        return ()
    _patch(settings)
    from proxy.upstream_clients import adapter_faults

    return adapter_faults(settings.upstreams)


try:
    _settings, _faults = load_or_keep(_adapter_faults)
except ConfigError as error:
    # One clear line per fault and no worker that dies again and again.
    sys.exit("\n".join(f"config: {fault}" for fault in error.faults))

GC_THRESHOLD = 10_000  # containers made and not yet gone, against Python's 700

_server = _settings.server
_patch(_settings)

import os  # noqa: E402
import socket  # noqa: E402

from loguru import logger  # noqa: E402

from proxy import gunicorn_master  # noqa: E402
from proxy.caller_source import IDLE_S  # noqa: E402
from proxy.descriptors import connections_most, raise_limit, warn_if_fewer  # noqa: E402
from proxy.gunicorn_request import check_head  # noqa: E402
from proxy.gunicorn_workers import ENDING_S  # noqa: E402
from proxy.observability.logging import set_up  # noqa: E402
from proxy.observability.metrics_folder import MetricsFolder  # noqa: E402
from proxy.token_sources import is_single_active  # noqa: E402
from proxy.tokens.stores.file import StoreError, open_folder  # noqa: E402
from sandbox.process import SandboxError, SandboxProcess  # noqa: E402

gunicorn_master.install()
set_up(level=_settings.logging.level, line_format=_settings.logging.format)

for _fault in _faults:
    logger.error("config: {} (the settings before it stay)", _fault)

bind = _server.bind
workers = _server.workers
worker_class = {
    "gevent": "proxy.gunicorn_workers.GeventJsonWorker",
    "gthread": "proxy.gunicorn_workers.ThreadJsonWorker",
}[_server.worker_class]
threads = _server.threads if _server.worker_class == "gthread" else 1
# At its own limit gunicorn stops accepting without a word; ours comes first and answers 503.
_connections = _server.max_concurrent_requests + 1000
raise_limit(_server.worker_requests, _connections)
worker_connections = connections_most(_connections)
warn_if_fewer(_server.worker_requests)

timeout = 120  # a worker whose hub stands still that long is replaced; requests may take longer
graceful_timeout = round(_server.drain_s) + ENDING_S
keepalive = round(IDLE_S)  # with gthread also the limit for a request's head

header_map = "refuse"  # X_Forwarded_For and X-Forwarded-For must not become one
forwarded_allow_ips = "127.0.0.1,::1"
forwarder_headers = ""  # by default SCRIPT_NAME from loopback would move every path
limit_request_field_size = 12 * 1024  # so that a key of 8 KB is 401 like any other
http_parser = "python"
http_protocols = "h1"  # h2 would serve the streams of one connection one after another
control_socket_disable = True
logger_class = "proxy.observability.gunicorn_logger.GunicornLogger"
accesslog = None
proc_name = "llm-proxy"


def on_starting(server):
    """In the master, before the workers: what must be there, and the sandbox where the config asks for one."""
    _check_free(server)
    if any(is_single_active(source) for source in _settings.token_sources.values()):
        try:
            open_folder()
        except StoreError as error:
            sys.exit(f"token store: {error}; an issuer that is single_active needs one that all workers share")
    if _settings.sandbox is None:
        return
    try:
        # Kept on the master: SIGHUP runs this file anew and its variables are gone then.
        server.sandbox = SandboxProcess.start(_settings.sandbox.bind, _settings.sandbox.token_lifetime_s)
    except SandboxError as error:
        sys.exit(f"sandbox: {error}")
    where = server.sandbox.url
    server.log.warning("SANDBOX: a toy issuer and a toy upstream run at %s; see `sandbox` in config.yaml", where)


def _check_free(server):
    """gunicorn would ask for a port that is taken for more than five seconds, with two lines each time."""
    if server.master_pid or "LISTEN_FDS" in os.environ:
        return  # the listener is handed on, by the master before or by systemd
    for address in server.cfg.address:
        if isinstance(address, tuple):
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
            try:
                socket.create_server(address, family=family).close()
            except OSError as error:
                # The number alone says nothing of an unknown name, and the text ends with the address once more.
                reason = (error.strerror or str(error)).partition(" (while")[0]
                sys.exit(f"bind: {address[0]}:{address[1]}: {reason}")


def when_ready(server):
    # Once, at a full start: workers that come with a SIGHUP count on in the same folder.
    server.metrics_folder = _make_metrics_folder()
    host = f"[{_server.host}]" if ":" in _server.host else _server.host
    if _settings.sandbox is not None:
        body = '{"model": "sandbox-chat", "messages": [{"role": "user", "content": "Hello"}]}'
        url = f"http://{host}:{_server.port}{_server.url_prefixes[0]}/v1/chat/completions"
        print(f"\nTry it:\n  curl {url} -d '{body}'\n", file=sys.stderr, flush=True)


def _make_metrics_folder():
    try:
        return MetricsFolder.make(open_folder())
    except (OSError, StoreError) as error:
        logger.error("metrics: {}; each worker counts for itself", error)
        return None


def post_worker_init(worker):
    """What is there now stays: Python's search for cycles need not look at it again, and may come less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    worker.wsgi.extensions["llm_proxy"].is_ending = lambda: not worker.alive


def pre_request(worker, req):
    check_head(req)


def worker_exit(server, worker):
    app = getattr(worker, "wsgi", None)
    if app is not None:
        app.extensions["llm_proxy"].close()


def on_exit(server):
    folder = getattr(server, "metrics_folder", None)
    if folder is not None:
        folder.remove()
    sandbox = getattr(server, "sandbox", None)
    if sandbox is not None:
        sandbox.stop()
    _give_up_what_cannot_be_written()
    # Python's last search for cycles, on its way out, was seen to hang among gevent's objects.
    gc.freeze()


def _give_up_what_cannot_be_written():
    """Where the log is full or its reader gone, Python would try once more on its way out, and end with 120."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
