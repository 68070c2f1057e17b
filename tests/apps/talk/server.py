"""The ServerApp: asks, then trains in rounds of its own."""

import random

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """One query, then rounds: the last one by push and pull."""
    nodes = list(grid.get_node_ids())
    replies = grid.send_and_receive([Message(RecordDict(), node, "query") for node in nodes])
    assert sum(reply.content["metrics"]["samples"] for reply in replies) >= 10 * len(nodes)
    w = np.random.normal(0, 1, 3).astype(np.float32)  # noqa: NPY002
    for number in range(context.run_config["rounds"]):
        messages = [
            Message(RecordDict({"arrays": ArrayRecord({"w": Array(w)})}), node, "train.step")
            for node in random.sample(nodes, 3)
        ]
        try:
            if number < context.run_config["rounds"] - 1:
                replies = grid.send_and_receive(messages)
            else:
                waiting, replies = set(grid.push_messages(messages)), []
                while waiting:
                    pulled = list(grid.pull_messages(waiting))
                    waiting -= {reply.metadata.reply_to_message_id for reply in pulled}
                    replies += pulled
        except Exception:
            if not context.run_config["swallow"]:
                raise
            return
        w = np.mean([reply.content["arrays"]["w"].numpy() for reply in replies if reply.has_content()], axis=0).astype(
            np.float32
        )
