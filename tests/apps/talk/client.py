"""The ClientApp."""

import random

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    """How many samples the client has."""
    return Message(RecordDict({"metrics": MetricRecord({"samples": random.randint(10, 20)})}), reply_to=message)


@app.train("step")
def step(message: Message, context: Context) -> Message | None:
    """A noisy step; client 1 does it wrong if the config says so."""
    w = message.content["arrays"]["w"].numpy()
    new = (w + np.random.normal(0, 1, w.shape)).astype(np.float32)  # noqa: NPY002
    how = context.run_config["how"] if context.node_config["partition-id"] == 1 else "good"
    if how == "none":
        return None
    if how == "nan":
        new[0] = np.nan
    content = RecordDict(
        {"arrays": ArrayRecord({"w": Array(new)}), "metrics": MetricRecord({"norm": float(np.linalg.norm(new))})}
    )
    return Message(content, reply_to=message)
