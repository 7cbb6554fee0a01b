"""Protocol section 2.7: SimulationIo, as simulations and their SuperExecs see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from flwr.common import ConfigRecord
from flwr.common.serde import config_record_from_proto, config_record_to_proto
from flwr.proto import appio_pb2, run_pb2, serverappio_pb2, simulationio_pb2_grpc
from harness import (
    Process,
    SuperLink,
    environment,
    free_port,
    port_is_open,
    superlink_command,
    wait_for,
)
from scenario import reference_differs
from wire import (
    COMPLETED,
    FINISHED,
    PENDING,
    RUNNING,
    STARTING,
    AppIo,
    Control,
    expect_error,
    make_fab,
)

OPTIONS = {"num-supernodes": 3, "backend.name": "ray", "verbose": True, "ratio": 0.5}


class SimulationIo(AppIo):
    """The simulation's and SuperExec's side: the calls of AppIo that it has, and one more."""

    STUB = simulationio_pb2_grpc.SimulationIoStub

    def federation_options(self, run_id: int, **options: Any) -> dict[str, Any]:
        """GetFederationOptions."""
        request = run_pb2.GetFederationOptionsRequest(run_id=run_id)
        answer = self.call("GetFederationOptions", request, **options)
        return dict(config_record_from_proto(answer.federation_options))


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SuperLink]:
    directory = tmp_path_factory.mktemp("simulation")
    with SuperLink(directory, simulation=True, args=["--hold-seconds", "0"]) as running:
        yield running


@pytest.fixture()
def control(link: SuperLink) -> Iterator[Control]:
    with Control(link.control) as stub:
        yield stub


@pytest.fixture()
def simulation(link: SuperLink) -> Iterator[SimulationIo]:
    with SimulationIo(link.simulationio) as stub:
        yield stub


def _options(**values: Any) -> Any:
    return config_record_to_proto(ConfigRecord(values))


def _start(control: Control, **options: Any) -> Any:
    return control.start_run_response(make_fab(), options=_options(**options))


def test_simulation_a_run_from_submission_to_end(
    control: Control, simulation: SimulationIo
) -> None:
    run_id = _start(control, **OPTIONS).run_id
    assert simulation.list_apps() == [run_id]
    token = simulation.request_token(run_id)
    inputs = simulation.pull_inputs(token)
    assert (inputs.context.run_id, inputs.context.node_id) == (run_id, 0)
    assert inputs.fab.hash_str == inputs.run.fab_hash
    assert simulation.status(run_id)[0] == STARTING
    assert simulation.federation_options(run_id) == OPTIONS
    assert simulation.heartbeat(run_id)
    simulation.update_status(run_id, RUNNING)
    assert simulation.get_run_status(run_id)[run_id].status == RUNNING
    simulation.push_logs(run_id, "one\n", "two\n")
    simulation.push_outputs(token, run_id, inputs.context)
    simulation.finish(run_id)
    assert simulation.status(run_id)[:2] == (FINISHED, COMPLETED)
    log = "".join(part.log_output for part in control.stream_logs(run_id))
    assert log == "one\ntwo\n"


@pytest.mark.parametrize("options", [{}, {"num-clients": 3}, {"backend.num-supernodes": 3}])
def test_simulation_needs_the_number_of_nodes(control: Control, options: dict[str, Any]) -> None:
    assert not _start(control, **options).HasField("run_id")
    assert _start(control, **options, **{"num-supernodes": 0}).HasField("run_id")


def test_simulation_options_of_an_unknown_run(simulation: SimulationIo) -> None:
    code = grpc.StatusCode.FAILED_PRECONDITION
    expect_error(code, None, simulation.federation_options, 4711)


def test_simulation_has_no_nodes(control: Control, simulation: SimulationIo) -> None:
    run_id = _start(control, **OPTIONS).run_id
    call = simulation.channel.unary_unary(
        "/flwr.proto.SimulationIo/GetNodes",
        request_serializer=serverappio_pb2.GetNodesRequest.SerializeToString,
        response_deserializer=serverappio_pb2.GetNodesResponse.FromString,
    )
    request = serverappio_pb2.GetNodesRequest(run_id=run_id)
    expect_error(grpc.StatusCode.UNIMPLEMENTED, None, call, request, timeout=10)


def test_110_simulation_tokens(control: Control, simulation: SimulationIo) -> None:
    run_id = _start(control, **OPTIONS).run_id
    code = grpc.StatusCode.PERMISSION_DENIED
    for token in ("", "0" * 256):
        expect_error(code, "Invalid token.", simulation.pull_inputs, token)
        context = appio_pb2.PullAppInputsResponse().context
        expect_error(code, "Invalid token.", simulation.push_outputs, token, run_id, context)
    assert simulation.status(run_id)[0] == PENDING


def test_simulation_serves_nothing_else(
    start_superlink: Callable[..., SuperLink],
) -> None:
    link = start_superlink(simulation=True, health=True)
    assert not port_is_open(link.serverappio) and not port_is_open(link.fleet)
    assert f"Flower Simulation Engine: Starting SimulationIo API on {link.simulationio}" in link.log
    assert f"Starting Control API on {link.control}" in link.log
    assert "ServerAppIo" not in link.log and "Fleet API" not in link.log


@reference_differs("launches flower-superexec, with the address as it is")
def test_123_simulation_launch_line(tmp_path: Path) -> None:
    """A SuperExec of ours for simulations, which calls on the loopback."""
    port = free_port()
    flags = ["--insecure", "--simulation", "--simulationio-api-address", f"0.0.0.0:{port}"]
    flags += ["--control-api-address", f"127.0.0.1:{free_port()}"]
    env = environment(tmp_path / "home")
    with Process("superlink", [*superlink_command(), *flags], tmp_path, env) as process:
        process.wait_log("Starting SimulationIo API")
        wanted = (
            f"superexec --insecure --appio-api-address 127.0.0.1:{port} "
            f"--plugin-type simulation --parent-pid {process.pid}"
        )
        wait_for(
            lambda: any(wanted in command for command in process.children().values()),
            20.0,
            "the launch",
        )
