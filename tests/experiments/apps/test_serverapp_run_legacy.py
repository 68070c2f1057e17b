"""Apps of Flower's API before messages: their order, and clients that say by their status that they cannot."""

import pytest

from tests.experiments.apps.small_apps import COMPONENTS, LEGACY, WORKFLOW, Try, events

CLIENT = LEGACY.replace("BAD", "-1")
ORDERED = COMPONENTS.replace(
    "def server_fn",
    """class Ordered(FedAvg):
    def configure_fit(self, *args, **kwargs):
        self.asked = super().configure_fit(*args, **kwargs)
        return self.asked
    def aggregate_fit(self, server_round, results, failures):
        assert [c.node_id for c, _ in results] == [c.node_id for c, _ in self.asked]
        return super().aggregate_fit(server_round, results, failures)
def server_fn""",
).replace("strategy=FedAvg(", "strategy=Ordered(")


def test_results_come_in_the_order_of_the_clients_that_were_asked(attempt: Try) -> None:
    slow = CLIENT.replace("        assert", "        __import__('time').sleep(0.02 * (4 - self.n))\n        assert")
    code, first, log, _ = attempt(ORDERED, slow, "--clients", "5", head="")
    # round 0, the initial parameters of one client, and two exchanges a round
    assert (code, first["error"], len(log.rounds)) == (0, None, 2 + 2 * 2)
    assert attempt(ORDERED, slow, "--clients", "5", head="")[1]["digest"] == first["digest"]


def test_a_client_that_cannot_evaluate_is_an_event_and_one_that_cannot_train_a_failure(attempt: Try) -> None:
    [evaluate] = [line for line in CLIENT.splitlines() if "def evaluate" in line]
    code, summary, log, _ = attempt(COMPONENTS, CLIENT.replace(evaluate, ""), "--clients", "2", head="")
    assert (code, summary["clients_failed"]) == (0, 0) and events(log) == ["no_function"] * 4
    assert log.rounds["dropped"].tolist()[-3:] == [2, 0, 2]
    unable = CLIENT.replace("app =", "class Unable(Half):\n    fit = NumPyClient.fit\napp =")
    unable = unable.replace(": Half(", ": (Half, Unable)[context.node_config['partition-id']](")
    code, summary, log, _ = attempt(COMPONENTS, unable, "--clients", "2", head="")
    assert code == 1 and "status 3" in summary["error"]
    code, summary, log, _ = attempt(COMPONENTS, unable, "--clients", "2", "--failures", "tolerate:0.5", head="")
    assert (code, summary["clients_failed"]) == (0, 2)
    assert log.rounds["completed"].tolist()[-4:] == [1, 2, 1, 2]


def test_secure_aggregation_repeats_though_its_secrets_do_not(attempt: Try) -> None:
    server = WORKFLOW.replace("min_available_clients=2)", "fraction_evaluate=0.0)").replace(
        "DefaultWorkflow()(", "from flwr.server.workflow import SecAggPlusWorkflow\n    "
        "DefaultWorkflow(SecAggPlusWorkflow(num_shares=1.0, reconstruction_threshold=0.5, max_weight=8))("
    )  # fmt: skip
    mods = ", mods=[__import__('flwr.client.mod', fromlist=['mod']).secaggplus_mod])"
    client = CLIENT.rstrip().removesuffix(")") + mods
    code, first, log, _ = attempt(server, client, head="")
    assert (code, log.rounds["exchange"].tolist()[1:]) == (0, ["train"] * 8)  # four stages a round
    assert set(events(log)) == {"not_repeatable"} and "SecAgg+" in log.events["reason"].dropna().iloc[0]
    # as without it, p <- p / 2 + 4 / 3, to the nearest of 2^22 steps between -8 and 8
    assert log.model()["0"].tolist() == pytest.approx([0.25 + 4 / 3 * 1.5] * 2, abs=1e-4)
    assert attempt(server, client, head="")[1]["digest"] == first["digest"]
