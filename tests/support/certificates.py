"""Certificates for TLS on loopback, made by openssl when a test needs them."""

import shlex
import subprocess
from pathlib import Path


def self_signed(file: Path, common_name: str) -> Path:
    """A key on P-256 and its certificate for 127.0.0.1 in one PEM file, good for two days."""
    made = subprocess.run(
        shlex.split(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -keyout - -out - "
            f"-subj /CN={common_name} -addext subjectAltName=IP:127.0.0.1"
        ),
        check=True,
        capture_output=True,
    )
    file.write_bytes(made.stdout)
    return file
