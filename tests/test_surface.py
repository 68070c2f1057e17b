"""The names that ``fl_sim`` exports are a fixed list, each documented and annotated."""

import ast
import inspect

import pytest

import fl_sim

SURFACE = """Batch BlockResult Callback ConfigError Local LocalRule Loss Partition Pool PoolingStrategy RoundFailed
RoundLog Run RunLog SimulationGrid Task Transform accuracy cross_entropy from_arrays load load_all local offer optim rng
run_rounds squared_error tree""".split()  # noqa: SIM905


def test_the_surface_is_what_it_was() -> None:
    assert sorted(fl_sim.__all__) == sorted(SURFACE)


def test_what_type_checkers_read_is_what_is_imported() -> None:
    [block] = [node for node in ast.parse(inspect.getsource(fl_sim)).body if isinstance(node, ast.If)]
    read = {
        node.module: " ".join(a.name for a in node.names) for node in block.body if isinstance(node, ast.ImportFrom)
    }
    assert read == fl_sim._PLACES and set(fl_sim.__all__) <= set(dir(fl_sim))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        fl_sim.nothing  # noqa: B018


def test_everything_public_is_documented_and_annotated() -> None:
    for name in fl_sim.__all__:
        public = getattr(fl_sim, name)
        assert public.__doc__, name
        functions = (
            [public]
            if inspect.isfunction(public)
            else [f for n, f in inspect.getmembers(public, inspect.isfunction) if n[0] != "_"]
        )
        for function in functions:
            own = function.__module__.startswith("fl_sim")
            assert not own or (function.__doc__ and "return" in function.__annotations__), f"{name}.{function.__name__}"
