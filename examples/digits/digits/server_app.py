"""What the server does: average the nodes' weights, and report the accuracy of each round."""

from __future__ import annotations

import hashlib
import time
from typing import Callable

from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from digits import task

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run federated averaging for ``num-server-rounds`` rounds."""
    config = context.run_config
    nodes = int(config["min-nodes"])
    weights = task.initial_weights(int(config["hidden-units"]), int(config["seed"]))
    strategy = FedAvg(
        fraction_evaluate=float(config["fraction-evaluate"]),
        min_train_nodes=nodes,
        min_evaluate_nodes=nodes,
        min_available_nodes=nodes,
    )
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(numpy_ndarrays=weights),
        num_rounds=int(config["num-server-rounds"]),
        train_config=ConfigRecord({"lr": float(config["lr"])}),
        evaluate_fn=_reporter(),
    )
    # The same settings and nodes make the same weights, bit by bit.
    digest = hashlib.sha256()
    for layer in result.arrays.to_numpy_ndarrays():
        digest.update(layer.tobytes())
    print(f"weights: {digest.hexdigest()[:16]}", flush=True)


def _reporter() -> Callable[[int, ArrayRecord], MetricRecord]:
    """Test on the server's images after each round; prints accuracy and the round's duration."""
    samples = task.load_test()
    before = time.monotonic()

    def report(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        nonlocal before
        loss, accuracy = task.test(arrays.to_numpy_ndarrays(), samples)
        now = time.monotonic()
        if server_round == 0:
            print(f"untrained: accuracy {accuracy:.3f}", flush=True)
        else:
            print(f"round {server_round}: accuracy {accuracy:.3f} ({now - before:.1f} s)", flush=True)
        before = now
        return MetricRecord({"loss": loss, "accuracy": accuracy})

    return report
