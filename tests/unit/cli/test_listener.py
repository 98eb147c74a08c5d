import socket

import pytest

from darkroom.cli.listener import listen, url_of
from darkroom.errors import BadSetting


def test_port_0_picks_one():
    """With port 0 the address that is told is the one that can be connected to."""
    with listen("127.0.0.1", 0) as listener:
        port = int(url_of("127.0.0.1", listener).rsplit(":", 1)[1])
        socket.create_connection(("127.0.0.1", port), timeout=5).close()


def test_a_taken_port_is_said_with_the_remedy():
    """A second server on one port is refused before it loads anything."""
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(BadSetting, match=rf"port {port}: .*--port"):
            listen("127.0.0.1", port)


def test_an_unknown_host_is_named():
    """A host that is no address of any machine is named."""
    with pytest.raises(BadSetting, match=r"256\.0\.0\.1"):
        listen("256.0.0.1", 0)


def test_an_address_of_another_machine_is_refused():
    """Listening on somebody else's address is refused."""
    with pytest.raises(BadSetting, match=r"192\.0\.2\.1"):
        listen("192.0.2.1", 0)


@pytest.mark.parametrize(
    ("host", "url"), [("0.0.0.0", "http://127.0.0.1:"), ("::1", "http://[::1]:"), ("localhost", "http://localhost:")]
)
def test_the_url_can_be_opened_here(host, url):
    """The address told is one that a client on this machine can use."""
    try:
        listener = listen(host, 0)
    except BadSetting:
        pytest.skip(f"this machine has no {host}")
    with listener:
        assert url_of(host, listener).startswith(url)
