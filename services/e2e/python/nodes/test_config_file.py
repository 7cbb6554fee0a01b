"""A federation of ours whose flags are in one configuration file."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

from federation import APPS, App
from harness import Certificates, Process, SuperLink, binary, environment, free_port, make_appio_tls


class FromFile(SuperLink):
    """A SuperLink that is told nothing but where the file is."""

    def command(self) -> list[str]:
        return [str(binary()), "superlink", "--config", "flwr.toml"]


def test_a_federation_starts_from_a_file(tmp_path: Path, certificates: Certificates) -> None:
    """All three daemons, with TLS, QUIC and a SuperExec; the node's configuration is said on its command line."""
    link = FromFile(tmp_path, tls=certificates)
    appio = make_appio_tls(tmp_path, certificates)
    clientappio = f"127.0.0.1:{free_port()}"
    own = dict(zip(appio.server_flags()[::2], appio.server_flags()[1::2]))
    tables: dict[str, dict[str, object]] = {
        "superlink": {
            "isolation": "process",
            "transport": ["grpc", "quic"],
            "serverappio-api-address": link.serverappio,
            "fleet-api-address": link.fleet,
            "control-api-address": link.control,
            "ssl-ca-certfile": certificates.ca,
            "ssl-certfile": certificates.cert,
            "ssl-keyfile": certificates.key,
            **{str(flag)[2:]: value for flag, value in own.items()},
        },
        "supernode": {
            "superlink": link.fleet,
            "root-certificates": certificates.ca,
            "transport": "quic",
            "clientappio-api-address": clientappio,
            "max-concurrent-apps": 2,
        },
        "superexec": {
            "appio-api-address": link.serverappio,
            "plugin-type": "serverapp",
            "root-certificates": certificates.ca,
            "appio-join-secret-file": appio.secret,
        },
    }
    lines = []
    for name, keys in tables.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {json.dumps(value, default=str)}" for key, value in keys.items()]
    (tmp_path / "flwr.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")

    with ExitStack() as stack:
        stack.enter_context(link)
        env = environment(tmp_path / "home")
        flags = {"superexec": [], "supernode": ["--node-config", "partition-id=0 num-partitions=1"]}
        for name, more in flags.items():
            argv = [binary(), name, "--config", "flwr.toml", *more]
            process = stack.enter_context(Process(name, argv, tmp_path, env))
            process.wait_log("Configuration from flwr.toml")
        process.wait_log("joined the SuperLink")
        app = App(APPS["probe"], tmp_path / "app", link, tmp_path / "home", [])
        app.start(arrays=1).check_round()
