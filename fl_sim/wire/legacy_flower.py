"""Flower's API before messages (``server_fn``, ``NumPyClient``, ``DefaultWorkflow``), made reproducible.

Flower serves it by threads: one registers nodes, and a pool sends a round's messages, whose results come in the order
in which they finish. While ``in_order`` is open, nodes are registered once, in ascending order, and the messages of a
phase are one exchange, whose results come in the order of the clients. Like ``fl_sim.wire.flower``, this file uses
parts of Flower that its documentation does not offer to apps.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flwr.app import ArrayRecord, Message
from flwr.common import Code
from flwr.compat.common import recorddict_compat as compat
from flwr.server import server as servers
from flwr.server import workflow as workflows
from flwr.server.compat import app as start
from flwr.server.compat.grid_client_proxy import GridClientProxy
from flwr.server.workflow import default_workflows
from flwr.server.workflow.constant import MAIN_PARAMS_RECORD
from flwr.serverapp import Grid

from fl_sim.errors import RoundFailed

Phase = tuple[str, Callable[..., Any], Callable[..., Any], str]
FIT: Phase = ("train", compat.fitins_to_recorddict, lambda x: compat.recorddict_to_fitres(x, keep_input=True), "fit")
EVALUATE: Phase = (
    "evaluate", compat.evaluateins_to_recorddict, compat.recorddict_to_evaluateres, "evaluate",
)  # fmt: skip
"""Message type, instructions -> content, content -> result, and the method of a client that is no node."""


@contextmanager
def in_order(on_model: Callable[[ArrayRecord], None]) -> Iterator[None]:
    """While open, apps of the API before messages run in a fixed order; ``on_model`` gets their final model."""
    serving: Any = start
    run_fl, workflow = serving.run_fl, workflows.DefaultWorkflow.__call__

    def run_and_tell(server: Any, config: Any) -> Any:
        history = run_fl(server=server, config=config)
        on_model(compat.parameters_to_arrayrecord(server.parameters, keep_input=True))
        return history

    def work_and_tell(self: Any, grid: Grid, context: Any) -> None:
        workflow(self, grid, context)
        on_model(context.state.array_records[MAIN_PARAMS_RECORD])

    replaced: list[tuple[Any, str, object]] = [
        (serving, "start_update_client_manager_thread", register_nodes),
        (default_workflows, "start_update_client_manager_thread", register_nodes),
        (servers, "fit_clients", lambda *args, **kwargs: _answers(FIT, *args, **kwargs)),
        (servers, "evaluate_clients", lambda *args, **kwargs: _answers(EVALUATE, *args, **kwargs)),
        (serving, "run_fl", run_and_tell),
        (workflows.DefaultWorkflow, "__call__", work_and_tell),
    ]
    before = [getattr(owner, name) for owner, name, _ in replaced]
    try:
        for owner, name, new in replaced:
            setattr(owner, name, new)
        yield
    finally:
        for (owner, name, _), old in zip(replaced, before, strict=True):
            setattr(owner, name, old)


def register_nodes(grid: Grid, client_manager: Any) -> tuple[threading.Thread, threading.Event, threading.Event]:
    """Register all nodes, which never change, and make a wait for more an error; in place of Flower's thread."""
    nodes = sorted(grid.get_node_ids())
    for node in nodes:
        client_manager.register(GridClientProxy(node_id=node, grid=grid, run_id=grid.run.run_id))
    wait_for = client_manager.wait_for

    def wait(num_clients: int, *args: Any, **kwargs: Any) -> Any:
        if num_clients > len(nodes):
            few = f"waiting for {num_clients} nodes, and there are {len(nodes)}: they never come in a simulation"
            needs = "a strategy that needs fewer (min_available_clients, min_fit_clients)"
            raise RoundFailed(f"{few}; give more clients (--clients N), or {needs}")
        return wait_for(num_clients, *args, **kwargs)

    client_manager.wait_for = wait
    thread, stop, done = threading.Thread(target=int), threading.Event(), threading.Event()
    thread.start()
    done.set()
    return thread, stop, done


def _answers(
    phase: Phase, client_instructions: Any, max_workers: int | None, timeout: float | None, group_id: int
) -> tuple[list[Any], list[Any]]:
    """(results, failures) of Flower's ``fit_clients`` and ``evaluate_clients``, in the order of the clients."""
    kind, to_content, to_result, method = phase
    results: list[Any] = []
    failures: list[Any] = []
    if not all(isinstance(client, GridClientProxy) for client, _ in client_instructions):
        for client, instructions in client_instructions:
            try:
                result = getattr(client, method)(instructions, timeout=timeout, group_id=group_id)
                (results if result.status.code == Code.OK else failures).append((client, result))
            except RoundFailed:
                raise
            except Exception as error:
                failures.append(error)
        return results, failures
    messages = [
        Message(to_content(instructions, keep_input=True), client.node_id, kind, group_id=str(group_id))
        for client, instructions in client_instructions
    ]
    grid = client_instructions[0][0].grid
    replies = {r.metadata.reply_to_message_id: r for r in grid.send_and_receive(messages, timeout=timeout)}
    for (client, _), message in zip(client_instructions, messages, strict=True):
        reply = replies.get(message.metadata.message_id)
        if reply is None or reply.has_error():
            failures.append(ValueError("no reply came" if reply is None else reply.error.reason))
            continue
        result = to_result(reply.content)
        (results if result.status.code == Code.OK else failures).append((client, result))
    return results, failures
