"""The bad files and folders of ``experiments.attacks.inputs``: data sets, run folders, and what other commands read."""

from experiments.attacks.input_cases import FEW, Input

IMAGES = f"{FEW} --task images --data_dir d"
BOMB = """
def bomb(name, width, height):
    import struct, zlib
    def part(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    whole = b"\\x89PNG\\r\\n\\x1a\\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(b"")) + part(b"IEND", b"")
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(whole)
"""
TABLE = """
def table(name, columns):
    import pandas as pd
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(columns).to_parquet(name)
def png(size=(28, 28)):
    from PIL import Image
    file = io.BytesIO()
    Image.new("L", size).save(file, "PNG")
    return file.getvalue()
"""
MNIST = "d/mnist/train.parquet"

PICTURES = {  # what is done to a good folder of pictures -> what the error, or a note, must say
    "an empty folder": ("import shutil; shutil.rmtree('d'); Path('d').mkdir()", "d\\b"),
    "no folder": ("import shutil; shutil.rmtree('d')", "data_dir.*'?d\\b"),
    "a file for a folder": ("import shutil; shutil.rmtree('d'); text('d', 'x')", "\\bd\\b"),
    "no test": ("import shutil; shutil.rmtree('d/test')", "test"),
    "a class of test alone": ("picture('d/test/c/0.png')", "/c\\b"),
    "an empty class": ("Path('d/train/c').mkdir()", "\\bc\\b"),
    "a text that is called .png": ("text('d/train/a/x.png', 'no picture')", "x\\.png"),
    "an empty .png": ("text('d/train/a/x.png', '')", "x\\.png"),
    "a .png cut off": (
        "b = Path('d/train/a/0.png').read_bytes(); Path('d/train/a/0.png').write_bytes(b[:-30])",
        "0\\.png",
    ),
    "a picture bomb": (f"{BOMB}\nbomb('d/train/a/x.png', 60000, 60000)", "x\\.png"),
    "a larger picture bomb": (f"{BOMB}\nbomb('d/train/a/x.png', 2**31 - 1, 2**31 - 1)", "x\\.png"),
    "a width of 0": (f"{BOMB}\nbomb('d/train/a/x.png', 0, 5)", "x\\.png"),
    "a link to itself": ("os.symlink('x.png', 'd/train/a/x.png')", "x\\.png"),
    "pictures in no class": ("picture('d/train/x.png')", "x\\.png"),
    "texts among pictures": ("text('d/train/a/x.txt', 'x')", "x\\.txt|\\.txt 1"),
    "a film": (
        "from PIL import Image; Image.new('RGB', (8, 8)).save('d/train/a/x.gif', save_all=True, "
        "append_images=[Image.new('RGB', (8, 8), (9, 9, 9))])",
        "x\\.gif",
    ),
}
"""Folders of pictures."""

TABLES = {  # lines that write d/mnist/train.parquet and test.parquet -> what the error must say
    "an empty file": (f"text('{MNIST}', ''); text('d/mnist/test.parquet', '')", "parquet"),
    "a text": (f"text('{MNIST}', 'x' * 99); text('d/mnist/test.parquet', 'x' * 99)", "parquet"),
    "cut off": (
        "for n in ('train', 'test'):\n f = f'd/mnist/{n}.parquet'; table(f, {'image': [png()] * 9, 'label': [1] * 9}); "
        "b = Path(f).read_bytes(); Path(f).write_bytes(b[:-40])",
        "parquet",
    ),
    "no columns of pictures": (
        "for n in ('train', 'test'): table(f'd/mnist/{n}.parquet', {'a': [1] * 9, 'label': [1] * 9})",
        "parquet.*(column|\\ba\\b)",
    ),
    "no labels": ("for n in ('train', 'test'): table(f'd/mnist/{n}.parquet', {'image': [png()] * 9})", "parquet"),
    "labels that are missing": (
        "for n in ('train', 'test'): table(f'd/mnist/{n}.parquet', {'image': [png()] * 9, 'label': [None, *[1] * 8]})",
        "label",
    ),
    "pictures that are none": (
        "for n in ('train', 'test'): table(f'd/mnist/{n}.parquet', {'image': [b'x'] * 9, 'label': [1] * 9})",
        "(row|sample|picture) ?.?0|parquet",
    ),
    "pictures that are numbers": (
        "for n in ('train', 'test'): table(f'd/mnist/{n}.parquet', {'image': [3] * 9, 'label': [1] * 9})",
        "image|parquet",
    ),
    "no rows": (
        "for n in ('train', 'test'): table(f'd/mnist/{n}.parquet', {'image': [], 'label': []})",
        "parquet|rows|samples",
    ),
    "a folder": (f"Path('{MNIST}').mkdir(parents=True); Path('d/mnist/test.parquet').mkdir()", "parquet|d/mnist|'d'"),
    "the test half alone": ("table('d/mnist/test.parquet', {'image': [png()] * 9, 'label': [1] * 9})", "train|'d'"),
}
"""Parquet files for ``--task mnist``."""

USERS = {  # a module mine.py and a flag -> what the error must say
    "--task mine:make | def make(): return 3": "task.name = 'mine:make'",
    "--task mine:make | def make(): return None": "task.name = 'mine:make'",
    "--task mine:make | def make(): 1 / 0": "task.name = 'mine:make'.*ZeroDivision|ZeroDivision.*mine:make",
    "--task mine:make | def make(a): return a": "task.name = 'mine:make'.*'a'",
    "--task mine:make | import numpy as np; from fl_sim import from_arrays; "
    "make = lambda: from_arrays(np.load('x.npz')['x'], np.arange(3))": "mine:make",
    "--task mine:make | import pandas as pd; make = lambda: pd.read_csv('x.csv')": "DataFrame",
    "--task mine:make | import pickle; make = lambda: pickle.loads(b'x')": "mine:make",
    "--task mine:make | make = 3": "task.name = 'mine:make'",
    "--task mine:makes | def make(): return 3": "task.name = 'mine:makes'",
    "--task mine:make | def make(:": "mine:make",
    "--task mine:make | raise RuntimeError('no')": "mine:make.*no",
    "--task mine:make | raise SystemExit(0)": "mine:make",
    "--task mine:make | import sys; sys.exit('no')": "mine:make",
    "--task mine:make | import no_module": "mine:make.*no_module",
    "--model mine:M | import torch\nclass M(torch.nn.Module): pass": "mine:M",
    "--model mine:M | import torch\nclass M(torch.nn.Module):\n def __init__(self, inputs, outputs):"
    " super().__init__()\n def forward(self, x): 1 / 0": "mine:M",
    "--strategy mine:S | from flwr.serverapp.strategy import Strategy\nclass S(Strategy): pass": "mine:S.*abstract",
    "--strategy mine:S | class S: pass": "strategy.name = 'mine:S'",
    "--strategy mine:S | from strategies.fedavg import FedAvg as A\nclass S(A):\n def __init__(self): 1 / 0": "mine:S",
    "--strategy mine:S | from strategies.fedavg import FedAvg as A\nclass S(A):\n def __init__(self, a): 0": "S.*'a'",
    "--partition mine:p | def p(task, clients, seed): return 3": "partition.name = 'mine:p'|mine:p",
    "--partition mine:p | def p(task, clients, seed): return [[0], [99999999]]": "99999999",
    "--partition mine:p | def p(task, clients, seed): return [[0, 0]] * clients": "mine:p|twice",
    "--partition mine:p | def p(task, clients, seed): 1 / 0": "mine:p.*ZeroDivision|ZeroDivision.*mine:p",
}
"""A user's modules."""

RUNS = {  # what is done to a run folder -> (words, what the error must say)
    "a config that is gone": ("(r / 'config.toml').unlink()", "run --resume {r}", "resume = "),
    "a config of nonsense": ("(r / 'config.toml').write_text('x x')", "run --resume {r}", "config.toml"),
    "a config with a wrong number": (
        "c = r / 'config.toml'; c.write_text(c.read_text().replace('rounds = 1', 'rounds = -1'))",
        "run --resume {r}",
        "rounds = -1",
    ),
    "a log of nonsense": ("(r / 'rounds.jsonl').write_text('x')", "run --resume {r} --rounds 2", "rounds.jsonl"),
    "a log of lists": ("(r / 'rounds.jsonl').write_text('[1]\\n')", "run --resume {r} --rounds 2", "rounds.jsonl"),
    "a summary of nonsense": ("(r / 'summary.json').write_text('x')", "run --resume {r}", "summary.json"),
    "a checkpoint of nonsense": (
        "[(c.unlink(), c.write_bytes(b'x')) for c in (r / 'checkpoints').iterdir()]",
        "run --fork {r} --rounds 2",
        "checkpoint",
    ),
    "no checkpoint": ("import shutil; shutil.rmtree(r / 'checkpoints')", "run --fork {r} --rounds 2", "fork = "),
    "a round that is not there": ("0", "run --fork {r}@7 --rounds 9", "fork = .*7"),
    "a round that is none": ("0", "run --fork {r}@x --rounds 9", "fork = .*x"),
    "a negative round": ("0", "run --fork {r}@-1 --rounds 9", "fork = .*-1"),
    "fewer rounds": ("0", "run --resume {r} --rounds 0", "rounds = "),
    "another rate": ("0", "run --resume {r} --rounds 2 --local.lr 0.7", "local.lr = 0.7"),
    "several seeds": ("0", "run --resume {r} --rounds 2 --seed 0,1", "resume = "),
    "replay of no client": ("0", "replay {r} --round 1 --client 99", "client = 99|client 99|99"),
    "replay of a negative client": ("0", "replay {r} --round 1 --client -1", "-1"),
    "replay of no round": ("0", "replay {r} --round 9 --client 0", "round = 9|round 9|9"),
    "replay of round 0": ("0", "replay {r} --round 0 --client 0", "round = 0|round 0|0"),
    "replay of nothing": ("0", "replay nowhere --round 1 --client 0", "nowhere"),
    "analysis of nothing": ("0", "analysis nowhere", "nowhere"),
    "analysis of an empty folder": ("Path('e').mkdir()", "analysis e", "\\be\\b"),
    "analysis with a target of 85": ("0", "analysis {r} --target 85", "target"),
    "analysis with a target of nan": ("0", "analysis {r} --target nan", "target"),
    "analysis of a log of nonsense": ("(r / 'rounds.jsonl').write_text('x')", "analysis {r}", "rounds.jsonl"),
    "a picture in a file": ("text('f', 'x')", "analysis {r} --png f/x.png", "\\bf\\b"),
    "a study without a name": ("0", "collect ../x {r} --tuned x", "\\.\\./x"),
    "a study of nothing": ("0", "collect x nowhere --tuned x", "nowhere"),
    "a check of nothing": ("0", "check nowhere.py", "nowhere.py"),
    "a check of a text": ("text('x.txt', 'x')", "check x.txt", "x.txt"),
    "a check of broken code": ("text('x.py', 'def :')", "check x.py", "x.py"),
    "a check of nothing in it": ("text('x.py', 'a = 3')", "check x.py", "x.py"),
    "a partition of nothing": ("0", "partition --task digitz", "task.name = 'digitz'"),
    "a partition of too many": ("0", "partition --clients 99999", "clients = 99999"),
    "keys that leave their folder": ("0", "deploy keys --hosts a,../../evil", "hosts.*\\.\\./\\.\\./evil"),
    "keys for no one": ("0", "deploy keys --hosts ,", "hosts"),
    "keys for one twice": ("0", "deploy keys --hosts a,b,b", "hosts.*b"),
    "a plan for no port": ("0", "deploy plan --hosts a,b --port 99999999", "port = '?99999999"),
    "a deployment of -1 nodes": ("0", "deploy up --nodes -1", "nodes = '?-1"),
    "a deployment of a million nodes": ("0", "deploy up --nodes 1000000", "nodes = '?1000000"),
    "a deployment of words": ("0", "deploy up --nodes many", "nodes = 'many'"),
    "a deployment by Ray": ("0", "deploy up --nodes 2 --engine ray", "engine = 'ray'"),
    "a deployment in no time": ("0", "deploy up --nodes 2 --timeout_s nan", "timeout_s = '?nan"),
    "an unknown deployment": ("0", "deploy upp --nodes 2", "upp"),
    "an app without a project": ("Path('a').mkdir()", "run --app a", "pyproject.toml|app = "),
    "an app of nonsense": ("text('a/pyproject.toml', 'x x')", "run --app a", "pyproject.toml"),
    "an app without components": (
        "text('a/pyproject.toml', '[project]\\nname = \"a\"')",
        "run --app a",
        "pyproject.toml",
    ),
}
"""Run folders, and the other commands."""


def files() -> list[Input]:
    """All of these inputs."""
    found = [
        Input(f"pictures: {name}", says, IMAGES, f"pictures()\n{code}", noted=True)
        for name, (code, says) in PICTURES.items()
    ]
    mnist = f"{FEW} --task mnist --data_dir d"
    found += [Input(f"Parquet: {name}", says, mnist, f"{TABLE}\n{code}") for name, (code, says) in TABLES.items()]
    for name, says in USERS.items():
        flag, _, code = name.partition(" | ")
        words = f"{FEW.replace('--model lr ', '') if '--model' in flag else FEW} {flag}"
        broken = "text('x.npz', 'PK'); text('x.csv', 'a,b\\n1')"
        found.append(Input(name, says, words, f"{broken}; text('mine.py', {code!r})"))
    found += [Input(name, says, words, f"r = ran()\n{code}") for name, (code, words, says) in RUNS.items()]
    return found
