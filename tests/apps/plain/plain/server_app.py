"""The ServerApp."""

from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from plain.task import Net, load_data, test

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """FedAvg with central evaluation; the initial model is PyTorch's own, from the global generator."""
    strategy = FedAvg(fraction_train=context.run_config["fraction-train"], fraction_evaluate=1.0)
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(Net().state_dict()),
        train_config=ConfigRecord({"lr": context.run_config["lr"]}),
        num_rounds=context.run_config["num-server-rounds"],
        evaluate_fn=evaluate,
    )
    net = Net()
    net.load_state_dict(result.arrays.to_torch_state_dict())
    rounds = sorted(result.evaluate_metrics_serverapp)
    print(f"final model: test accuracy {test(net, load_data(-1))[1]} after rounds {rounds}")


def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    """The global model on the server's samples."""
    net = Net()
    net.load_state_dict(arrays.to_torch_state_dict())
    loss, accuracy = test(net, load_data(-1))
    return MetricRecord({"test_loss": loss, "test_accuracy": accuracy})
