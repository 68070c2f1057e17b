"""The ClientApp."""

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from plain.task import Net, load_data, test, train

app = ClientApp()


@app.train()
def train_fn(msg: Message, context: Context) -> Message:
    """One epoch; the client counts its rounds in its state."""
    client, config = int(context.node_config["partition-id"]), msg.content["config"]
    rounds = context.state.setdefault("rounds", ConfigRecord({"done": 0}))
    rounds["done"] += 1
    if client == context.run_config["fail.client"] and config["server-round"] >= context.run_config["fail.round"]:
        if context.run_config["fail.how"] == "raise":
            raise RuntimeError("the disk of this device is full")
        raise SystemExit(0)
    net = Net()
    net.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    data = load_data(client)
    config["lr"] *= 0.9 ** rounds["done"]  # a client's copy of the message is its own
    metrics = {"train_loss": train(net, data, config["lr"]), "lr": config["lr"], "num-examples": len(data[0])}
    torch.rand(client)  # however much is drawn here, nobody else notices
    return Message(
        RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": MetricRecord(metrics)}), reply_to=msg
    )


@app.evaluate()
def evaluate_fn(msg: Message, context: Context) -> Message:
    """Loss and accuracy on the client's samples."""
    net = Net()
    net.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    data = load_data(int(context.node_config["partition-id"]))
    loss, accuracy = test(net, data)
    metrics = MetricRecord({"eval_loss": loss, "eval_acc": accuracy, "num-examples": len(data[0])})
    return Message(RecordDict({"metrics": metrics}), reply_to=msg)
