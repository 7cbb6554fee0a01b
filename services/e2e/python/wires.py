"""Ways to an address on this machine that can be cut off and mended."""

from __future__ import annotations

import selectors
import socket
import threading


class TcpWire:
    """A way to a TCP address, by a port that can be cut off and mended."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._is_cut = threading.Event()
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections, and every new one at once."""
        self._is_cut.set()
        for end in self._ends:
            _hang_up(end)

    def mend(self) -> None:
        """Let connections through again."""
        self._is_cut.clear()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._is_cut.is_set():
                near.close()
                continue
            far = socket.create_connection(self._target)
            self._ends += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=_pump, args=(source, sink), daemon=True).start()

    def __enter__(self) -> "TcpWire":
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.cut()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    _hang_up(source)
    _hang_up(sink)


def _hang_up(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


class UdpWire:
    """A way to a UDP address, by a port that can be cut off and mended. A caller that comes from another
    port is somebody else, with a way of its own; ``rebind`` gives those there are a new port, as a
    middle box does that has forgotten them. ``sent`` counts the bytes of packets to the address;
    ``cut_at`` cuts it off once there are so many."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._is_cut = threading.Event()
        self.sent = 0
        self._cut_at: float = float("inf")
        self._selector = selectors.DefaultSelector()
        self._near = _udp_socket()
        self._far: dict[tuple[str, int], socket.socket] = {}
        self._lock = threading.Lock()
        self._selector.register(self._near, selectors.EVENT_READ, None)
        self._is_open = True
        self.address = f"127.0.0.1:{self._near.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Lose every packet."""
        self._is_cut.set()

    def mend(self) -> None:
        """Let packets through again, however many."""
        self._cut_at = float("inf")
        self._is_cut.clear()

    def cut_at(self, sent: float) -> None:
        """Lose every packet once ``sent`` bytes have passed to the address."""
        self._cut_at = sent

    @property
    def is_cut(self) -> bool:
        """Whether packets are lost."""
        return self._is_cut.is_set()

    def rebind(self) -> None:
        """Let everybody come from a new port."""
        with self._lock:
            for caller, old in list(self._far.items()):
                self._selector.unregister(old)
                old.close()
                self._far[caller] = self._open(caller)

    def _open(self, caller: tuple[str, int]) -> socket.socket:
        far = _udp_socket()
        far.connect(self._target)
        self._selector.register(far, selectors.EVENT_READ, caller)
        return far

    def _run(self) -> None:
        while self._is_open:
            for key, _ in self._selector.select(0.1):
                with self._lock:
                    self._move(key.fileobj, key.data)  # type: ignore[arg-type]

    def _move(self, source: socket.socket, caller: tuple[str, int] | None) -> None:
        try:
            for _ in range(64):
                if caller is not None:
                    data = source.recv(65536)
                    if not self._is_cut.is_set():
                        self._near.sendto(data, caller)
                    continue
                data, address = source.recvfrom(65536)
                if not self._is_cut.is_set():
                    far = self._far.get(address) or self._far.setdefault(address, self._open(address))
                    far.send(data)
                    self.sent += len(data)
                    if self.sent >= self._cut_at:
                        self.cut()
        except OSError:
            pass  # nothing more, or nobody there

    def __enter__(self) -> "UdpWire":
        return self

    def __exit__(self, *_: object) -> None:
        self._is_open = False
        self._thread.join()
        for end in (self._near, *self._far.values()):
            end.close()


def _udp_socket() -> socket.socket:
    end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    end.bind(("127.0.0.1", 0))
    end.setblocking(False)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    return end
