"""The server's process, where it runs on this machine and may be looked at."""

from __future__ import annotations

import ipaddress
import socket
import time
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Used:
    """What was used up to one moment."""

    wall_s: float
    generator_cpu_s: float
    server_cpu_s: float
    """User and system time of all its threads; 0 where its process is not to be seen."""

    def __sub__(self, other: Used) -> Used:
        return Used(
            self.wall_s - other.wall_s,
            self.generator_cpu_s - other.generator_cpu_s,
            self.server_cpu_s - other.server_cpu_s,
        )


class Local:
    """The process that listens on a port of this machine; none where the server is elsewhere, or somebody else's."""

    def __init__(self, host: str, port: int) -> None:
        self.process = _listening(port) if _is_here(host) else None

    def used(self) -> Used:
        """What it and this process have used so far."""
        cpu = 0.0
        if self.process is not None:
            try:
                times = self.process.cpu_times()
                cpu = times.user + times.system
            except psutil.Error:
                self.process = None
        return Used(time.perf_counter(), time.process_time(), cpu)

    def memory_bytes(self) -> int | None:
        """Its private memory, or what it has resident where that is all that may be seen."""
        if self.process is None:
            return None
        try:
            return int(self.process.memory_full_info().uss)
        except psutil.AccessDenied:
            return int(self.process.memory_info().rss)
        except psutil.Error:
            self.process = None
            return None


def _is_here(host: str) -> bool:
    try:
        found = {str(info[4][0]).partition("%")[0] for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return False
    own = {address.address.partition("%")[0] for addresses in psutil.net_if_addrs().values() for address in addresses}
    return all(address in own or ipaddress.ip_address(address).is_loopback for address in found)


def _listening(port: int) -> psutil.Process | None:
    try:
        connections = psutil.net_connections("tcp")
    except psutil.Error:
        return None
    for each in connections:
        if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port and each.pid is not None:
            try:
                return psutil.Process(each.pid)
            except psutil.Error:
                return None
    return None
