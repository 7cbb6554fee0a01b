"""What goes over the loopback interface, and who listens there.

    with Capture(directory, [9092, 9093]) as capture, Listeners() as listeners:
        ...
    for stream in capture.streams:
        print(stream.server, stream.sent[:3], listeners.owner(stream.server[1]))

The capture holds everything of the given ports, and of all others only packets that begin with the
preface of HTTP/2 in plain text: other tests may move gigabytes over the same interface.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import signal
import struct
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator, NamedTuple, Optional, Sequence

from harness import Process

PREFACE = b"PRI * HTTP/2.0\r\n"
_BEGINS_WITH_PREFACE = int.from_bytes(PREFACE[:4], "big")
_SYN, _ACK = 0x02, 0x10

Address = tuple[str, int]


def unavailable() -> Optional[str]:
    """Why nothing can be captured here, if so."""
    if os.geteuid() != 0:
        return "capturing packets takes root"
    if shutil.which("tcpdump") is None:
        return "tcpdump is missing: sudo apt-get install tcpdump"
    return None


# -- packets ------------------------------------------------------------------------------------


class Segment(NamedTuple):
    """One TCP segment."""

    source: Address
    target: Address
    sequence: int
    flags: int
    data: bytes


def segments(file: Path) -> Iterator[Segment]:
    """The TCP segments in a capture file of Ethernet or Linux cooked frames, in order."""
    content = file.read_bytes()
    order = "<" if content[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    (link_type,) = struct.unpack_from(f"{order}I", content, 20)
    link_bytes, type_at = {1: (14, 12), 113: (16, 14), 276: (20, 0)}[link_type & 0xFFFF]
    at = 24
    while at + 16 <= len(content):
        kept, length = struct.unpack_from(f"{order}II", content, at + 8)
        assert kept == length, "a packet was cut"
        frame = content[at + 16 : at + 16 + kept]
        at += 16 + kept
        (kind,) = struct.unpack_from(">H", frame, type_at)
        segment = _segment(kind, frame[link_bytes:])
        if segment is not None:
            yield segment


def _segment(kind: int, packet: bytes) -> Optional[Segment]:
    if kind == 0x0800 and packet[9] == 6:
        begin, end = (packet[0] & 15) * 4, int.from_bytes(packet[2:4], "big")
        source, target = packet[12:16], packet[16:20]
    elif kind == 0x86DD and packet[6] == 6:
        begin, end = 40, 40 + int.from_bytes(packet[4:6], "big")
        source, target = packet[8:24], packet[24:40]
    else:
        return None
    # The length is left out of packets that the system never had to cut.
    tcp = packet[begin : end if end > begin else len(packet)]
    source_port, target_port, sequence = struct.unpack_from(">HHI", tcp)
    return Segment(
        (str(ipaddress.ip_address(source)), source_port),
        (str(ipaddress.ip_address(target)), target_port),
        sequence,
        tcp[13],
        tcp[(tcp[12] >> 4) * 4 :],
    )


@dataclass(eq=False)
class Stream:
    """One TCP connection: what its client and its server said, as far as it was captured."""

    client: Address
    server: Address
    begun: int
    """The client's first sequence number."""
    _pieces: dict[int, bytes] = field(default_factory=dict)
    packets: list[bytes] = field(default_factory=list)
    """The data of every packet in either direction."""

    def add(self, segment: Segment) -> None:
        """One more segment of this connection."""
        if not segment.data:
            return
        self.packets.append(segment.data)
        if segment.source == self.client:
            offset = (segment.sequence - self.begun) % 2**32
            known = self._pieces.get(offset, b"")
            self._pieces[offset] = max(known, segment.data, key=len)

    @property
    def sent(self) -> bytes:
        """What the client said, from its first byte to the first that was not captured."""
        data = b""
        for offset, piece in sorted(self._pieces.items()):
            if offset > len(data):
                break
            data += piece[len(data) - offset :]
        return data


def streams(file: Path) -> list[Stream]:
    """The connections in a capture file. One whose beginning was not captured begins with what was."""
    found: list[Stream] = []
    current: dict[tuple[Address, Address], Stream] = {}
    for segment in segments(file):
        key = (min(segment.source, segment.target), max(segment.source, segment.target))
        is_opening = segment.flags & (_SYN | _ACK) == _SYN
        stream = current.get(key)
        if is_opening and stream is not None and stream.begun == (segment.sequence + 1) % 2**32:
            continue
        if is_opening or stream is None:
            begun = (segment.sequence + is_opening) % 2**32
            stream = current[key] = Stream(segment.source, segment.target, begun)
            found.append(stream)
        stream.add(segment)
    return found


class Capture:
    """A running ``tcpdump``; the streams are there once it has ended."""

    def __init__(self, directory: Path, ports: Sequence[int]) -> None:
        self.file = directory / "loopback.pcap"
        whole = " or ".join(f"port {port}" for port in ports)
        v4 = f"tcp[(tcp[12] & 0xf0) >> 2 : 4] = {_BEGINS_WITH_PREFACE:#x}"
        v6 = f"ip6 proto 6 and ip6[40 + ((ip6[52] & 0xf0) >> 2) : 4] = {_BEGINS_WITH_PREFACE:#x}"
        expression = f"(tcp and ({whole})) or (ip and tcp and {v4}) or ({v6})"
        # As root: otherwise it may not write where only root may.
        argv = ["tcpdump", "-i", "lo", "-n", "-U", "-Z", "root", "-s", "0", "-B", "65536"]
        self._tcpdump = Process("tcpdump", [*argv, "-w", self.file, expression], directory)
        self.streams: list[Stream] = []

    def __enter__(self) -> "Capture":
        self._tcpdump.wait_log("listening on lo")
        return self

    def __exit__(self, kind: Optional[type], *_: object) -> None:
        try:
            self._tcpdump.signal(signal.SIGINT)
            self._tcpdump.wait()
        finally:
            self._tcpdump.close()
        if kind is None:
            assert "\n0 packets dropped by kernel" in self._tcpdump.log, self._tcpdump.log
            self.streams = streams(self.file)


# -- listeners ----------------------------------------------------------------------------------


class Owner(NamedTuple):
    """A process that listens."""

    pid: int
    session: int
    host: str


class Listeners:
    """Who listens on which TCP port of this machine, watched while this is entered."""

    INTERVAL = 0.02

    def __init__(self) -> None:
        self._owners: dict[int, list[Owner]] = {}
        self._seen: set[str] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def owners(self, port: int) -> list[Owner]:
        """Everybody who has listened on a port so far."""
        return self._owners.get(port, [])

    def __enter__(self) -> "Listeners":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(self.INTERVAL):
            fresh = {inode: at for inode, at in _listening() if inode not in self._seen}
            if not fresh:
                continue
            for inode, pid, session in _sockets(set(fresh)):
                self._seen.add(inode)
                host, port = fresh[inode]
                self._owners.setdefault(port, []).append(Owner(pid, session, host))


def _listening() -> Iterator[tuple[str, Address]]:
    for table in ("tcp", "tcp6"):
        try:
            lines = Path("/proc/net", table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == "0A":
                host, port = fields[1].split(":")
                # Words of four bytes in the order of the machine.
                words = [bytes.fromhex(host[at : at + 8])[::-1] for at in range(0, len(host), 8)]
                yield fields[9], (str(ipaddress.ip_address(b"".join(words))), int(port, 16))


def _sockets(inodes: set[str]) -> Iterator[tuple[str, int, int]]:
    """Which process has which of these sockets: inode, pid, session."""
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            links = [os.readlink(link) for link in (process / "fd").iterdir()]
            session = int((process / "stat").read_text().rpartition(")")[2].split()[3])
        except OSError:
            continue
        for link in links:
            inode = link.removeprefix("socket:[").removesuffix("]")
            if inode in inodes and link.startswith("socket:["):
                yield inode, int(process.name), session
