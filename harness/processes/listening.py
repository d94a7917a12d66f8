"""Find which process listens on a port of this machine, and which ones listen for other machines."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from typing import Any

import psutil

# How the system may list a server that listens at all addresses, or at 127.0.0.1 through IPv6.
_ANY = ("0.0.0.0", "::", "::ffff:127.0.0.1")
_Addresses = set[tuple[str, int]]


def stranger_on(host: str, port: int, root_pid: int) -> str | None:
    """Return who listens at an address, other than a process and its descendants.

    None if nobody does, and if bench cannot tell: the system shows no listener there, or it shows one without
    its pid and also hides the sockets of some of these processes.
    """
    addresses = {(each, port) for each in (host, *_ANY)}
    processes = _tree(root_pid)
    try:
        pids = {each.pid for each in _at(addresses, psutil.net_connections("tcp"))}
    except psutil.Error:  # macOS tells only root
        listens, hides = _own_sockets(addresses, processes)
        return "another process" if processes and not (listens or hides) else None
    processes |= _tree(root_pid)  # one that began meanwhile may have the socket
    strangers = pids - {each.pid for each in processes}
    if strangers_known := strangers - {None}:
        return _named(strangers_known.pop())
    return "a process of another user" if strangers and not _own_sockets(addresses, processes)[1] else None


def _tree(pid: int) -> set[psutil.Process]:
    with suppress(psutil.Error):
        root = psutil.Process(pid)
        return {root, *root.children(recursive=True)}
    return set()


def _at(addresses: _Addresses, connections: Iterable[Any]) -> Iterator[Any]:
    return (
        each for each in connections if each.status == psutil.CONN_LISTEN and tuple(each.laddr) in addresses
    )


def _own_sockets(addresses: _Addresses, processes: Iterable[psutil.Process]) -> tuple[bool, bool]:
    """Return whether one of the processes is seen to listen there, and whether one hides its sockets."""
    listens = hides = False
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            try:
                listens |= any(_at(addresses, process.net_connections("tcp")))
            except psutil.AccessDenied:
                hides = True
    return listens, hides


def _named(pid: int) -> str:
    try:
        return f"process {pid} ({psutil.Process(pid).name()})"
    except psutil.Error:
        return f"process {pid}"


def beyond_loopback() -> Iterator[tuple[str, list[str]]]:
    """Yield each address beyond loopback, as IP:PORT, with the command line of the process listening there.

    Processes of other users are left out. Raises psutil.Error if the system shows no listeners.
    """
    listening = [each for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
    owned = [(*each.laddr, each.pid) for each in listening if each.laddr and each.pid]
    return ((f"{ip}:{port}", _command_line(pid)) for ip, port, pid in owned if not _is_loopback(ip))


def _is_loopback(address: str) -> bool:
    ip = ip_address(address)
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return (mapped or ip).is_loopback


def _command_line(pid: int) -> list[str]:
    try:
        return psutil.Process(pid).cmdline()
    except psutil.Error:  # it has ended
        return []
