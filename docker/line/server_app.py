"""What the server does: average the nodes' lines, and save the result where it works."""

from __future__ import annotations

import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run federated averaging for ``num-server-rounds`` rounds."""
    nodes = int(context.run_config["min-nodes"])
    strategy = FedAvg(
        fraction_evaluate=0.0,
        min_train_nodes=nodes,
        min_evaluate_nodes=nodes,
        min_available_nodes=nodes,
    )
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord([np.zeros(2)]),
        num_rounds=int(context.run_config["num-server-rounds"]),
    )
    slope, offset = result.arrays.to_numpy_ndarrays()[0]
    # Relative: in the deployment that is the volume flower-model-outputs.
    name = f"line-{context.run_id}.npy"
    np.save(name, np.array([slope, offset]))
    print(f"y = {slope:.3f} x + {offset:.3f}, saved as {name}", flush=True)
