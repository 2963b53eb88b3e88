"""What a program of its own does not import, which is why it starts fast."""

from __future__ import annotations

import subprocess
import sys

TRAINING_ON_CPU = """
import sys
import torch
from cove_dist.quantization import CascadedQuantizer
for learning in ("gradient", "ema"):
    quantizer = CascadedQuantizer(8, (20, 5), learning=learning)
    out = quantizer(torch.randn(9, 8, requires_grad=True))
    (out.fused.sum() + out.loss).backward()
assert "triton" not in sys.modules
"""


def test_training_on_cpu_does_not_import_triton() -> None:
    subprocess.run([sys.executable, "-c", TRAINING_ON_CPU], check=True)


TRAINING_PROGRAM = """
import sys
from importlib import import_module
from pathlib import Path
from cove_dist import tasks
import cove_dist.tasks.configuration
assert "torchrec" not in sys.modules, "imported to compose a configuration"
import cove_dist.commands.train
folder = Path(tasks.__file__).parent
for path in folder.glob("*/[a-z]*.py"):
    if path.stem != "inference":
        import_module(".".join((tasks.__name__, path.parent.name, path.stem)))
for name in sys.argv[1:]:
    assert name not in sys.modules, f"{name}: imported to train"
"""
NOT_TO_TRAIN = (
    "cove_dist.experiments", "cove_dist.inference", "cove_dist.planning", "cove_dist.report", "cove_dist.warm_start",
    "duckdb", "faiss", "mlflow", "onnx", "optuna", "pandas", "pyarrow.compute", "pyarrow.dataset", "scipy", "sklearn",
    "torch.distributed.optim", "torch.utils.tensorboard", "wandb",
)  # fmt: skip


def test_composing_imports_no_torchrec_and_training_nothing_that_other_commands_need() -> None:
    done = subprocess.run([sys.executable, "-c", TRAINING_PROGRAM, *NOT_TO_TRAIN], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_version_and_completion_import_neither_torch_nor_hydra() -> None:
    script = """
import sys
from cove_dist.cli import main
for line in ("", "--version", "train --help", "train --help model", "completion bash", "doctor --help"):
    main(line.split())
assert not {"torch", "hydra", "pyarrow", "pydantic"} & set(sys.modules), sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_the_script_of_bash_completes_a_word_with_an_equals_sign() -> None:
    script = f"""
cove() {{ "{sys.executable}" -m cove_dist "$@"; }}
eval "$(cove completion bash)"
compopt() {{ :; }}
COMP_LINE="cove train quantizer=cove_i"; COMP_POINT=${{#COMP_LINE}}
_cove; echo "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == "cove_items\n"
