"""Which process listens on a port of this machine."""

import psutil

# As which the system may name a server that listens at all addresses, or at this one over IPv6.
_ANY = ("0.0.0.0", "::", "::ffff:127.0.0.1")


def stranger_on(host: str, port: int, watchdog_pid: int) -> str | None:
    """Return who listens at an address beside what this watchdog started; None if nobody does, or the system
    shows no listeners."""
    try:
        own = {watchdog_pid, *(each.pid for each in psutil.Process(watchdog_pid).children(recursive=True))}
        listening = [each for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
    except psutil.Error:
        return None
    addresses = {(each, port) for each in (host, *_ANY)}
    pids = {each.pid for each in listening if tuple(each.laddr) in addresses} - own
    return _named(pids.pop()) if pids else None


def _named(pid: int | None) -> str:
    if pid is None:
        return "a process of another user"
    try:
        return f"process {pid} ({psutil.Process(pid).name()})"
    except psutil.Error:
        return f"process {pid}"
