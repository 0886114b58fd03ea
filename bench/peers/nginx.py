"""nginx's proxy_pass as a target: the floor of what a proxy can cost. Debian's package, one worker, no access log."""

import os
import shutil
import subprocess

from bench.speed.lab import Lab
from bench.speed.requests import PEER_KEY
from bench.speed.targets import Command, Target

_CONFIG = """\
daemon off;
{user}
worker_processes 1;
worker_rlimit_nofile 65536;
pid {place}/nginx.pid;
error_log {place}/error.log warn;
events {{ worker_connections 30000; }}
http {{
    access_log off;
    client_max_body_size 32m;
    client_body_buffer_size 4m;  # else large bodies go through a file
    client_body_temp_path {place}/body;
    proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/fastcgi;
    uwsgi_temp_path {place}/uwsgi;
    scgi_temp_path {place}/scgi;
    keepalive_timeout 75s;
    keepalive_requests 100000000;
    upstream plain {{ server 127.0.0.1:{port_upstream}; keepalive 1024; keepalive_requests 100000000; }}
    upstream tls {{ server 127.0.0.1:{port_tls}; keepalive 1024; keepalive_requests 100000000; }}
    proxy_http_version 1.1;
    proxy_buffering off;
    proxy_set_header Connection "";
    proxy_set_header Authorization "Bearer {key}";
    proxy_ssl_trusted_certificate {ca_bundle};
    proxy_ssl_verify on;
    proxy_ssl_name 127.0.0.1;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location /v1/ {{ proxy_pass http://plain; }}
        location /tls/v1/ {{ proxy_pass https://tls/v1/; }}
    }}
}}
"""


def _command(lab: Lab, port: int) -> Command:
    place = lab.place("nginx")
    file = place / "nginx.conf"
    text = _CONFIG.format(
        user="user root;" if os.geteuid() == 0 else "",  # the lab's folder is open to its owner only
        place=place,
        port=port,
        port_upstream=lab.upstream_port,
        port_tls=lab.upstream_tls_port,
        key=PEER_KEY,
        ca_bundle=lab.ca_bundle,
    )
    file.write_text(text)
    return Command([_binary() or "nginx", "-c", str(file), "-p", str(place)], {})


def _binary() -> str | None:
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def _missing() -> str:
    return "" if _binary() else "not here: Debian's package nginx has it"


def _versions() -> str:
    said = subprocess.run([_binary() or "nginx", "-v"], capture_output=True, text=True, check=True)
    return said.stderr.strip().removeprefix("nginx version: ")


NGINX = Target("nginx", "nginx proxy_pass", _command, _missing, _versions, tls_prefix="/tls")
