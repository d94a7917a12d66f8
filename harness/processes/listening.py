"""Which process listens on a port of this machine."""

import psutil


def stranger_on(port: int, watchdog_pid: int) -> str | None:
    """Return who listens on a port beside what this watchdog started; None if nobody does, or the system
    shows no listeners."""
    try:
        own = {watchdog_pid, *(each.pid for each in psutil.Process(watchdog_pid).children(recursive=True))}
        listening = [each for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
    except psutil.Error:
        return None
    pids = {each.pid for each in listening if each.laddr and each.laddr.port == port} - own
    return _named(pids.pop()) if pids else None


def _named(pid: int | None) -> str:
    if pid is None:
        return "a process of another user"
    try:
        return f"process {pid} ({psutil.Process(pid).name()})"
    except psutil.Error:
        return f"process {pid}"
