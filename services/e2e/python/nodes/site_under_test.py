"""A SuperNode in process isolation, and ClientApps and launchers that a test plays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from federation import supernode_command
from flwr.proto import appio_pb2, clientappio_pb2_grpc, message_pb2
from harness import OURS, START_SECONDS, Process, environment, free_port, port_is_open, wait_for
from scripted import ScriptedSuperLink
from wire import AppIo, Packed, Pulled, fetch, reply, results


class Site(Process):
    """A SuperNode, ours unless `kind` says otherwise; `args` follow the flags of every start."""

    def __init__(
        self, fleet: str, directory: Path, *args: object, kind: str = OURS, name: str = "supernode"
    ) -> None:
        self.clientappio = f"127.0.0.1:{free_port()}"
        self.home = directory / f"{name}-home"
        self.home.mkdir(parents=True, exist_ok=True)
        flags: list[object] = ["--insecure", "--isolation", "process", "--superlink", fleet]
        flags += ["--clientappio-api-address", self.clientappio, *args]
        argv = [*supernode_command(kind), *flags]
        super().__init__(name, argv, directory, environment(self.home))

    def joined(self, link: ScriptedSuperLink) -> Site:
        """Wait until it serves ClientApps and is a node of the SuperLink; returns itself."""

        def ready() -> bool:
            assert self.running, f"ended with {self.returncode}\n{self.tail()}"
            return port_is_open(self.clientappio) and bool(link.named("CreateNode"))

        wait_for(ready, START_SECONDS, f"the SuperNode to join\n{self.tail()}")
        return self

    def peer(self, **options: Any) -> ClientAppIo:
        """A launcher or an app with a connection of its own."""
        return ClientAppIo(self.clientappio, **options)

    def work(self, run_id: int, **fields: Any) -> Work:
        """Launch an app for a run and let it do everything that a stock one does."""
        with self.peer() as launcher, self.peer() as app:
            work = app.begin(launcher.launch(run_id))
            app.answer(work, **fields)
            return work


@dataclass(frozen=True)
class Work:
    """What an app has to work on."""

    token: str
    inputs: appio_pb2.PullAppInputsResponse
    got: Pulled
    objects: dict[str, bytes]


class ClientAppIo(AppIo):
    """The ClientApp's and SuperExec's side of ClientAppIo, call by call."""

    STUB = clientappio_pb2_grpc.ClientAppIoStub

    def launchable(self, wait: float = 0.5) -> list[int]:
        """The runs that wait for an app. A server that holds the call has none."""
        try:
            return self.list_apps(timeout=wait)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
            return []

    def launch(self, run_id: int) -> str:
        """Wait until a run can be launched and claim it; returns the app's token."""
        wait_for(
            lambda: run_id in self.launchable(10.0), 30.0, f"run {run_id} to wait for an app"
        )
        token = self.request_token(run_id)
        assert token
        return token

    def pull_inputs(self, token: str, **options: Any) -> appio_pb2.PullAppInputsResponse:
        """PullClientAppInputs."""
        request = appio_pb2.PullAppInputsRequest(token=token)
        return self.call("PullClientAppInputs", request, **options)

    def pull_message(self, token: str, **options: Any) -> Pulled:
        """PullMessage, which must hand out one message."""
        request = appio_pb2.PullAppMessagesRequest(token=token)
        (only,) = results(self.call("PullMessage", request, **options))
        return only

    def announce(
        self, token: str, answer: Packed, **options: Any
    ) -> appio_pb2.PushAppMessagesResponse:
        """PushMessage alone: metadata and tree, no objects."""
        request = appio_pb2.PushAppMessagesRequest(
            token=token,
            messages_list=[answer.proto],
            run_id=answer.run_id,
            message_object_trees=[answer.tree],
        )
        return self.call("PushMessage", request, **options)

    def push_outputs(
        self, token: str, run_id: int, context: message_pb2.Context, **options: Any
    ) -> appio_pb2.PushAppOutputsResponse:
        """PushClientAppOutputs."""
        request = appio_pb2.PushAppOutputsRequest(token=token, run_id=run_id, context=context)
        return self.call("PushClientAppOutputs", request, **options)

    def begin(self, token: str) -> Work:
        """Do what a stock app does before it runs the user's code."""
        inputs = self.pull_inputs(token)
        got = self.pull_message(token)
        objects = fetch(self, got.run_id, got.tree)
        self.confirm(got.run_id, got.id)
        return Work(token, inputs, got, objects)

    def answer(
        self,
        work: Work,
        answer: Packed | None = None,
        context: message_pb2.Context | None = None,
    ) -> Packed:
        """Do what a stock app does after the user's code; returns the reply."""
        given = reply(work.got) if answer is None else answer
        self.push_objects(given, self.announce(work.token, given).objects_to_push)
        kept = work.inputs.context if context is None else context
        self.push_outputs(work.token, work.got.run_id, kept)
        return given
