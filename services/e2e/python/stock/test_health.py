"""The health service (protocol 2.8), asked through a raw channel without generated stubs."""

from __future__ import annotations

import grpc
import pytest

from harness import SuperLink

SERVING = b"\x08\x01"


def _check(channel: grpc.Channel, service: str) -> bytes:
    name = service.encode()
    request = b"\x0a" + bytes([len(name)]) + name if name else b""
    call = channel.unary_unary("/grpc.health.v1.Health/Check")
    return bytes(call(request, timeout=10))


@pytest.mark.parametrize("service", ["", "flwr.proto.Fleet", "anything"])
def test_check_answers_serving_for_every_name(
    health_link: SuperLink, service: str
) -> None:
    assert health_link.health is not None
    with grpc.insecure_channel(health_link.health) as channel:
        assert _check(channel, service) == SERVING


def test_watch_is_unimplemented(health_link: SuperLink) -> None:
    assert health_link.health is not None
    with grpc.insecure_channel(health_link.health) as channel:
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
        with pytest.raises(grpc.RpcError) as caught:
            next(watch(b"", timeout=10))
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_there_is_no_health_service_unless_asked_for(shared_superlink: SuperLink) -> None:
    with grpc.insecure_channel(shared_superlink.serverappio) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            _check(channel, "")
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.fixture(scope="module")
def health_link(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    with SuperLink(tmp_path_factory.mktemp("health"), health=True) as link:
        yield link
