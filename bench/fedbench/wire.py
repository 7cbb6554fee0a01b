"""Talking to a SuperLink with raw bytes: channels, node signatures, runs, FABs."""

import datetime
import hashlib
import io
import time
import zipfile

import grpc
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto import (
    appio_pb2,
    control_pb2,
    fab_pb2,
    fleet_pb2,
    heartbeat_pb2,
    node_pb2,
    run_pb2,
    serverappio_pb2,
)

CALL_S = 120
"""Deadline of every call in seconds; no stock server needs more, and nothing here may hang."""

MESSAGE_BYTES_MAX = 2**31 - 1
HEARTBEAT_S = 30.0


class Channel:
    """One connection; calls take and give serialized messages."""

    def __init__(self, address, tls_folder=None):
        options = [
            ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            # Without this, channels of one process to one address may share a connection.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if tls_folder:
            credentials = grpc.ssl_channel_credentials((tls_folder / "ca.crt").read_bytes())
            self._channel = grpc.secure_channel(address, credentials, options)
        else:
            self._channel = grpc.insecure_channel(address, options)
        self._methods = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._channel.close()

    def method(self, name):
        """The callable of `Service/Method`."""
        if name not in self._methods:
            self._methods[name] = self._channel.unary_unary(f"/flwr.proto.{name}")
        return self._methods[name]

    def call(self, name, request, response_type, metadata=None):
        """One call with messages of the generated classes."""
        raw = self.method(name)(request.SerializeToString(), timeout=CALL_S, metadata=metadata)
        return response_type.FromString(raw)

    def stream(self, name, request, response_type):
        """A server stream with messages of the generated classes."""
        method = self._channel.unary_stream(f"/flwr.proto.{name}")
        for raw in method(request.SerializeToString(), timeout=CALL_S):
            yield response_type.FromString(raw)


class Node:
    """A SuperNode as the server sees it: a connection, a P-384 key pair and a node id."""

    def __init__(self, channel):
        self._channel = channel
        self._key = ec.generate_private_key(ec.SECP384R1())
        self._pem = self._key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        request = fleet_pb2.CreateNodeRequest(heartbeat_interval=HEARTBEAT_S)
        self.id = self.call("CreateNode", request, fleet_pb2.CreateNodeResponse).node.node_id
        self.node = node_pb2.Node(node_id=self.id)

    def signature(self):
        """Metadata of one call: every call carries a fresh timestamp and its signature."""
        stamp = datetime.datetime.now(datetime.timezone.utc).isoformat()
        signed = self._key.sign(stamp.encode("ascii"), ec.ECDSA(hashes.SHA256()))
        return (("flwr-public-key-bin", self._pem), ("flwr-timestamp", stamp), ("flwr-signature-bin", signed))

    def call(self, name, request, response_type):
        """One signed Fleet call."""
        return self._channel.call(f"Fleet/{name}", request, response_type, self.signature())

    def call_raw(self, name, request):
        """One signed Fleet call, bytes to bytes."""
        return self._channel.method(f"Fleet/{name}")(request, timeout=CALL_S, metadata=self.signature())

    def heartbeat(self):
        """Says that the node is alive for the next 60 s."""
        request = heartbeat_pb2.SendNodeHeartbeatRequest(node=self.node, heartbeat_interval=HEARTBEAT_S)
        if not self.call("SendNodeHeartbeat", request, heartbeat_pb2.SendNodeHeartbeatResponse).success:
            raise RuntimeError("the server does not know the node any more")


class ServerApp:
    """The calls of a `flwr-serverapp` around its user code."""

    def __init__(self, channel):
        """Takes the one pending run and sets it running."""
        self.channel = channel
        runs = self._call("ListAppsToLaunch", appio_pb2.ListAppsToLaunchRequest(), appio_pb2.ListAppsToLaunchResponse)
        self.run_id = runs.run_ids[0]
        token = self._call(
            "RequestToken", appio_pb2.RequestTokenRequest(run_id=self.run_id), appio_pb2.RequestTokenResponse
        ).token
        self._call("PullAppInputs", appio_pb2.PullAppInputsRequest(token=token), appio_pb2.PullAppInputsResponse)
        self._set_status("running", "")

    def node_ids(self, count, seconds=30):
        """Waits until `count` nodes are online."""
        request = serverappio_pb2.GetNodesRequest(run_id=self.run_id)
        deadline = time.monotonic() + seconds
        while True:
            nodes = self._call("GetNodes", request, serverappio_pb2.GetNodesResponse).nodes
            if len(nodes) >= count:
                return sorted(node.node_id for node in nodes)
            if time.monotonic() > deadline:
                raise RuntimeError(f"{len(nodes)} of {count} nodes are online after {seconds} s")
            time.sleep(0.1)

    def finish(self):
        """Ends the run."""
        self._set_status("finished", "completed")

    def _set_status(self, status, sub_status):
        request = run_pb2.UpdateRunStatusRequest(
            run_id=self.run_id, run_status=run_pb2.RunStatus(status=status, sub_status=sub_status)
        )
        self._call("UpdateRunStatus", request, run_pb2.UpdateRunStatusResponse)

    def _call(self, name, request, response_type):
        return self.channel.call(f"ServerAppIo/{name}", request, response_type)


class ClientApp:
    """The calls of a `flwr-clientapp` around its user code, on the AppIo of a SuperNode."""

    def __init__(self, channel, seconds):
        """Takes the first launch there is."""
        self._channel = channel
        deadline = time.monotonic() + seconds
        while True:
            request = appio_pb2.ListAppsToLaunchRequest()
            runs = self._call("ListAppsToLaunch", request, appio_pb2.ListAppsToLaunchResponse).run_ids
            if runs:
                break
            if time.monotonic() > deadline:
                raise RuntimeError(f"no app was to be launched within {seconds} s")
            time.sleep(0.5)
        self.run_id = runs[0]
        request = appio_pb2.RequestTokenRequest(run_id=self.run_id)
        self.token = self._call("RequestToken", request, appio_pb2.RequestTokenResponse).token
        request = appio_pb2.PullAppInputsRequest(token=self.token)
        self._inputs = self._call("PullClientAppInputs", request, appio_pb2.PullAppInputsResponse)

    def message(self):
        """The message that it is launched for, and its tree."""
        request = appio_pb2.PullAppMessagesRequest(token=self.token)
        got = self._call("PullMessage", request, appio_pb2.PullAppMessagesResponse)
        return got.messages_list[0], got.message_object_trees[0]

    def answer(self, message, tree):
        """Announces a reply; returns the objects that are wanted."""
        request = appio_pb2.PushAppMessagesRequest(
            token=self.token, run_id=self.run_id, messages_list=[message], message_object_trees=[tree]
        )
        return self._call("PushMessage", request, appio_pb2.PushAppMessagesResponse).objects_to_push

    def finish(self):
        """Leaves behind what it was given."""
        request = appio_pb2.PushAppOutputsRequest(token=self.token, run_id=self.run_id)
        request.context.CopyFrom(self._inputs.context)
        self._call("PushClientAppOutputs", request, appio_pb2.PushAppOutputsResponse)

    def _call(self, name, request, response_type):
        return self._channel.call(f"ClientAppIo/{name}", request, response_type)


def start_run(control, fab, overrides=None):
    """StartRun; returns the run id. `overrides` are whole numbers of the run configuration."""
    request = control_pb2.StartRunRequest(
        fab=fab_pb2.Fab(hash_str=hashlib.sha256(fab).hexdigest(), content=fab)
    )
    for key, value in (overrides or {}).items():
        request.override_config[key].sint64 = value
    response = control.call("Control/StartRun", request, control_pb2.StartRunResponse)
    if not response.HasField("run_id"):
        raise RuntimeError("the server refused the FAB")
    return response.run_id


def run_status(control, run_id):
    """The status message of a run."""
    response = control.call(
        "Control/ListRuns", control_pb2.ListRunsRequest(run_id=run_id), control_pb2.ListRunsResponse
    )
    return response.run_dict[run_id].status


def make_fab(folder):
    """A FAB of the app in `folder`, laid out as `flwr build` does."""
    files = {"pyproject.toml": (folder / "pyproject.toml").read_bytes()}
    for path in sorted(folder.rglob("*.py")):
        files[str(path.relative_to(folder))] = path.read_bytes()
    listing = "".join(
        f"{name},{hashlib.sha256(data).hexdigest()},{len(data) * 8}\n"
        for name, data in files.items()
        if name != "pyproject.toml"
    )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, data in {**files, ".info/CONTENT": listing.encode()}.items():
            archive.writestr(zipfile.ZipInfo(name, (2024, 10, 1, 0, 0, 0)), data)
    return packed.getvalue()
