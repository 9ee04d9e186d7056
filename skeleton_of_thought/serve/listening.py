"""The address that the server listens on."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from typing import Any

from skeleton_of_thought._cli.diagnostics import as_line
from skeleton_of_thought.errors import InvalidInput, SotError

__all__ = ["bind", "is_loopback", "is_loopback_address", "url_of"]

Found = tuple[socket.AddressFamily, tuple[Any, ...]]


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine can reach an address.

    Raises:
        InvalidInput: There is no such address.
    """
    return all(is_loopback_address(address[0]) for _, address in _look_up(host, 0))


def is_loopback_address(text: str) -> bool:
    """The same for an address in numbers; False for any other text."""
    try:
        number = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return bool((getattr(number, "ipv4_mapped", None) or number).is_loopback)


def bind(host: str, port: int) -> socket.socket:
    """A socket that has the address but does not listen yet.

    Args:
        host: A name or an address; of a name with several addresses, the socket has the first, and IPv4 before IPv6.
        port: The port; 0 for any free one.

    Raises:
        InvalidInput: There is no such address, or it is not one of this machine.
        SotError: The port is in use, or needs more rights.
    """
    family, address = _look_up(host, port)[0]
    # asyncio has small parts sent at once (TCP_NODELAY) only if the protocol is named. Otherwise the first part of a
    # stream, after the headers, waits some 40 ms for the client to acknowledge them.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # on Windows the option lets two programs have the same port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and hasattr(socket, "IPPROTO_IPV6"):
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        # So that a second server fails before it loads its models: a port is taken only by one that listens.
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise _explained(error, host, port) from error
    listener.setblocking(False)
    return listener


def url_of(listener: socket.socket) -> str:
    """The address for clients on this machine."""
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host.partition("%")[0]).is_unspecified:
        host = "::1" if ":" in host else "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _look_up(host: str, port: int) -> list[Found]:
    shown = as_line(repr(host), 200)
    if not host.strip():
        raise InvalidInput("host is empty: give an address of this machine, such as 127.0.0.1, or 0.0.0.0 for all.")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise InvalidInput(
            f"There is no address {shown} ({error}): give one of this machine, such as 127.0.0.1."
        ) from error
    return sorted(
        ((family, address) for family, _, _, _, address in found if family in (socket.AF_INET, socket.AF_INET6)),
        key=lambda each: each[0] != socket.AF_INET,
    )


def _explained(error: OSError, host: str, port: int) -> Exception:
    where = f"{as_line(host, 200)}:{port}"
    if error.errno == errno.EADDRINUSE:
        return SotError(
            f"{where} is in use by another program: end that one, or choose another port, such as --port {port + 1} "
            "(--port 0 takes any that is free)."
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return SotError(f"{where} may not be used by this user: choose a port from 1024 on, such as --port 8000.")
    if error.errno == errno.EADDRNOTAVAIL:
        return InvalidInput(
            f"{as_line(host, 200)} is no address of this machine: choose 127.0.0.1, or 0.0.0.0 for all."
        )
    return SotError(f"The server cannot listen on {where}: {error.strerror or error}.")
