"""Makes a self-signed certificate for 127.0.0.1, and a TLS context that uses it."""

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest


def certificate_in(folder: Path) -> Path:
    """Write a key and its certificate into one file, and return its path. SSL_CERT_FILE makes it trusted."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl command to make a certificate with")
    path = folder / "both.pem"
    making = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=bench"
    subprocess.run(
        [*making.split(), "-keyout", path, "-out", f"{path}.crt", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True,
        capture_output=True,
    )
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


def tls_of(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context
