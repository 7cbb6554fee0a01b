"""A daemon's AppIo service that does as a test says: it hands out launches and holds apps."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
from flwr.proto import (
    appio_pb2,
    clientappio_pb2_grpc,
    serverappio_pb2_grpc,
    simulationio_pb2_grpc,
)
from harness import free_port, wait_for
from startup import Pair

SERVICES: dict[str, tuple[Any, Any, str]] = {
    "clientapp": (
        clientappio_pb2_grpc.ClientAppIoServicer,
        clientappio_pb2_grpc.add_ClientAppIoServicer_to_server,
        "PullClientAppInputs",
    ),
    "serverapp": (
        serverappio_pb2_grpc.ServerAppIoServicer,
        serverappio_pb2_grpc.add_ServerAppIoServicer_to_server,
        "PullAppInputs",
    ),
    "simulation": (
        simulationio_pb2_grpc.SimulationIoServicer,
        simulationio_pb2_grpc.add_SimulationIoServicer_to_server,
        "PullAppInputs",
    ),
}
"""By plug-in type: the service, and the first call of its apps."""


class ScriptedAppIo:
    """AppIo on a loopback port, with the certificate of `pair` if there is one."""

    def __init__(self, plugin: str = "clientapp", pair: Pair | None = None) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.asked = 0
        """How often launches were asked for."""
        self.inputs: list[str] = []
        """The tokens of apps that have asked for their inputs, which are never handed out."""
        self.tokens: dict[int, str] = {}
        """The runs that were launched, with their apps' tokens."""
        self._pair = pair
        self._waiting: list[int] = []
        self._changed = threading.Condition()
        self._ended = False
        self._ids = itertools.count(2**63 + 1)
        servicer_type, self._add, inputs = SERVICES[plugin]
        self._servicer = servicer_type()
        self._servicer.ListAppsToLaunch = self._list
        self._servicer.RequestToken = self._token
        setattr(self._servicer, inputs, partial(self._hold))
        self._server = grpc.server(ThreadPoolExecutor(16))

    def launch(self) -> int:
        """Let an app wait for its launch; returns its run id."""
        with self._changed:
            run_id = next(self._ids)
            self._waiting.append(run_id)
            self._changed.notify_all()
        return run_id

    def wait_launched(self, run_id: int) -> str:
        """The token of a run's app, once it was asked for."""
        return wait_for(lambda: self.tokens.get(run_id), 30, f"the launch of {run_id}")

    def _list(self, _request: Any, context: grpc.ServicerContext) -> Any:
        with self._changed:
            self.asked += 1
            self._changed.wait_for(
                lambda: self._waiting or self._ended or not context.is_active(), 1.0
            )
            return appio_pb2.ListAppsToLaunchResponse(run_ids=self._waiting)

    def _token(self, request: Any, _context: Any) -> Any:
        with self._changed:
            if request.run_id not in self._waiting:
                return appio_pb2.RequestTokenResponse()
            self._waiting.remove(request.run_id)
            token = f"{request.run_id:0256x}"
            self.tokens[request.run_id] = token
            return appio_pb2.RequestTokenResponse(token=token)

    def _hold(self, request: Any, context: grpc.ServicerContext) -> Any:
        with self._changed:
            self.inputs.append(request.token)
            context.add_callback(self._wake)
            self._changed.wait_for(lambda: self._ended or not context.is_active(), 60.0)
        context.abort(grpc.StatusCode.UNAVAILABLE, "as the test says")

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def __enter__(self) -> ScriptedAppIo:
        self._add(self._servicer, self._server)
        if self._pair is None:
            self._server.add_insecure_port(self.address)
        else:
            files = (self._pair.key.read_bytes(), self._pair.cert.read_bytes())
            self._server.add_secure_port(self.address, grpc.ssl_server_credentials([files]))
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._server.stop(0).wait()
