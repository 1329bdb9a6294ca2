"""Throwaway certificates: good for this machine's names, for a client that checks, for a while."""

from __future__ import annotations

import builtins
import os
import stat
import sys
from typing import Any

import pytest

from h2lite.certs import make_certificate
from h2lite.client import connect
from h2lite.errors import TLSError, UsageError
from h2lite.transport import server_context

from .running import needs_ipv6, serving


def test_a_client_that_checks_accepts_every_local_name(tmp_path):
    files = make_certificate(str(tmp_path))
    with serving(ssl_context=server_context(files.certfile, files.keyfile)) as server:
        for host in ("localhost", "127.0.0.1"):
            url = f"https://{host}:{server.port}"
            with connect(url, cafile=files.cafile) as connection:
                assert (connection.protocol, connection.tls_version) == ("h2", "TLSv1.3")


@needs_ipv6
def test_a_client_that_checks_accepts_the_ipv6_address(tmp_path):
    files = make_certificate(str(tmp_path))
    with serving(host="::1", ssl_context=server_context(files.certfile, files.keyfile)) as server:
        connect(server.url, cafile=files.cafile).close()


def test_it_is_good_for_the_names_asked_for_alone(tmp_path):
    files = make_certificate(str(tmp_path), ("localhost",))
    with serving(ssl_context=server_context(files.certfile, files.keyfile)) as server:
        connect(f"https://localhost:{server.port}", cafile=files.cafile).close()
        with pytest.raises(TLSError, match="certificate not accepted"):
            connect(f"https://127.0.0.1:{server.port}", cafile=files.cafile)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_the_key_is_for_its_owner_alone(tmp_path):
    files = make_certificate(str(tmp_path))

    assert stat.S_IMODE(os.stat(files.keyfile).st_mode) == 0o600
    assert sorted(os.listdir(tmp_path)) == ["ca.pem", "cert.pem", "key.pem"]


def test_two_authorities_do_not_know_each_other(tmp_path):
    (tmp_path / "other").mkdir()
    files = make_certificate(str(tmp_path))
    other = make_certificate(str(tmp_path / "other"))
    with (
        serving(ssl_context=server_context(files.certfile, files.keyfile)) as server,
        pytest.raises(TLSError, match="certificate not accepted"),
    ):
        connect(server.url, cafile=other.cafile)


def test_without_the_cryptography_package_the_extra_is_named(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name.partition(".")[0] == "cryptography":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *arguments, **keywords)

    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)

    with pytest.raises(UsageError, match=r"pip install 'h2lite\[certs\]'"):
        make_certificate(str(tmp_path))
    assert os.listdir(tmp_path) == []
