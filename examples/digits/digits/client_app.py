"""What every node does: train the model it is sent on its own share of the images, or test it."""

from __future__ import annotations

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from digits import task

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train on this node's images and send back the weights."""
    config, sent = context.run_config, message.content["config"]
    samples = _own_samples(context)
    weights, loss = task.train(
        message.content["arrays"].to_numpy_ndarrays(),
        samples,
        epochs=int(config["local-epochs"]),
        batch_size=int(config["batch-size"]),
        lr=float(sent["lr"]),
        seed=int(config["seed"]) + int(sent["server-round"]),
    )
    metrics = MetricRecord({"loss": loss, "num-examples": len(samples[1])})
    content = RecordDict({"arrays": ArrayRecord(numpy_ndarrays=weights), "metrics": metrics})
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Test on this node's images and send back loss and accuracy."""
    samples = _own_samples(context)
    loss, accuracy = task.test(message.content["arrays"].to_numpy_ndarrays(), samples)
    metrics = MetricRecord({"loss": loss, "accuracy": accuracy, "num-examples": len(samples[1])})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def _own_samples(context: Context) -> task.Samples:
    """The share named by ``--node-config "partition-id=0 num-partitions=2"``, all without it."""
    partitions = int(context.node_config.get("num-partitions", 1))
    partition = int(context.node_config.get("partition-id", 0))
    return task.load_train(partition % partitions, partitions)
