"""The socket a server listens on."""

import socket

from darkroom.errors import BadSetting

BACKLOG = 128
"""How many connections may wait to be accepted."""


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to the address, before anything slow begins. Raises `BadSetting` if it can't be had."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise BadSetting(f"can't listen on host {host}: {error.strerror}; name an address of this machine") from error
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise BadSetting(
            f"can't listen on {host} port {port}: {error.strerror}; free it, or choose another with --port "
            "(0 picks a free one)"
        ) from error
    return listener


def url_of(host: str, listener: socket.socket) -> str:
    """Where this machine reaches the server; one on every address is reached over the loopback."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  read, not bound
    port = listener.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
