"""What gRPC's servers are told at each handshake, and that many handshakes at once are survived."""

import socket
import ssl
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.identity.cast import authority, credentials, identity

THREADS = 16
HANDSHAKES = 2_000

SERVER = """
import asyncio, sys
import grpc
from tests.identity.cast import authority, credentials

async def main():
    server = grpc.aio.server()
    port = server.add_secure_port("127.0.0.1:0", credentials(authority(), "host1.1").server_credentials())
    await server.start()
    print(port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(0)

asyncio.run(main())
"""


@pytest.mark.parametrize("require_client", [True, False])
def test_a_server_is_told_of_a_new_identity_once(require_client: bool) -> None:
    """Goal: the TLS state is replaced at a renewal and never else. Method: ask before, after and again."""
    of = authority()
    present = credentials(of, "host1.1")
    news, others = (present.news_for_server(require_client=require_client) for _ in range(2))
    assert (news(), news()) == (None, None)
    present.replace(identity(of, "host1.1")[0])
    assert news() is not None
    assert news() is None
    assert others() is not None, "another listener learns it too"


@pytest.mark.integration
def test_many_handshakes_at_once_do_not_end_the_process(tmp_path: Path) -> None:
    """Goal: every peer may connect in the same moment, as after a link comes back.

    Method: threads that do nothing but TLS handshakes with a real server in a process of its own.
    """
    own, _ = identity(authority(), "host2.1")
    (tmp_path / "key.pem").write_bytes(own.key_pem)
    (tmp_path / "certificate.pem").write_bytes(own.certificate_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    context.set_alpn_protocols(["h2"])
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())

        def shake(_: int) -> int:
            try:
                with (
                    socket.create_connection(("127.0.0.1", port), timeout=10) as raw,
                    context.wrap_socket(raw),
                ):
                    return 1
            except OSError:
                return 0

        with ThreadPoolExecutor(max_workers=THREADS) as pool:
            made = sum(pool.map(shake, range(HANDSHAKES)))
        assert server.poll() is None, f"ended with {server.returncode} after {made} handshakes"
        server.communicate()
    assert server.returncode == 0
    assert made > HANDSHAKES // 2
