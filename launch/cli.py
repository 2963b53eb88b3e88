"""What the launch programs share: ``--help``, ``--print-config``, overrides, and errors as one message."""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence

import torch
from omegaconf import OmegaConf
from rich.logging import RichHandler

from cove_dist.composition import compose_yaml, config_folder
from cove_dist.console import console
from cove_dist.errors import UserError
from data_pipeline.errors import DataError

USAGE = """{doc}
usage: {program} [--help | --print-config] [group=option …] [key=value …]

{groups}keys, with their defaults (see the comments in {folder}):
{config}"""


# What gloo and nccl say when a rank is gone: a consequence, which must not bury the cause.
LOST_PEER = re.compile(r"closed by peer|reset by peer|remote process exited|Broken pipe", re.IGNORECASE)


def run(
    program: str,
    doc: str,
    config_name: str,
    action: Callable[[Sequence[str]], None],
    arguments: Sequence[str] | None = None,
    adapt: Callable[[Sequence[str]], list[str]] = list,
) -> None:
    """Run ``action(overrides)``; on bad input print one message and exit with 2, at once, whatever other ranks do.

    Args:
        program: as it is called, for the help text.
        doc: what it does, for the help text.
        config_name: the primary YAML file.
        action: the program.
        arguments: of the command line; `None` takes the process's own.
        adapt: turns the arguments into Hydra overrides.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    quiet_libraries()
    try:
        flags = {"-h", "--help", "--print-config"} & set(arguments)
        overrides = adapt([argument for argument in arguments if argument not in flags])
        if flags & {"-h", "--help"}:
            print(_help(program, doc, config_name, overrides))
        elif flags:
            print(OmegaConf.to_yaml(compose_yaml(config_name, overrides)), end="")
        else:
            action(overrides)
    except (UserError, DataError, FloatingPointError) as error:
        _fail(str(error))
    except RuntimeError as error:
        if "RANK" not in os.environ or not LOST_PEER.search(str(error)):
            raise
        _fail("lost another rank, which has stopped: its own message says why")
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(message: str) -> None:
    rank = os.environ.get("RANK")
    where = f" (rank {rank})" if rank is not None else ""
    print(f"error{where}: {message}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(2)  # not sys.exit: collectives under way in other threads would keep this rank, and so all ranks, waiting


def _help(program: str, doc: str, config_name: str, overrides: Sequence[str]) -> str:
    composed = compose_yaml(config_name, overrides)
    folder = config_folder()
    known = {*composed, "experiment"} if config_name == "train" else set(composed)
    groups = [path for path in sorted(folder.iterdir()) if path.is_dir() and path.name in known]
    lines = [f"  {path.name}: {', '.join(sorted(p.stem for p in path.glob('*.yaml')))}" for path in groups]
    listed = "\n".join(["groups:", *lines, "", ""]) if lines else ""
    config = "\n".join("  " + line for line in OmegaConf.to_yaml(composed).splitlines())
    return USAGE.format(doc=doc, program=program, groups=listed, folder=folder.name, config=config)


def quiet_libraries() -> None:
    """Our own messages at INFO; other libraries' only when they are errors."""
    handler = RichHandler(console=console, show_path=False, show_level=False, omit_repeated_times=False)
    logging.basicConfig(level=logging.ERROR, format="%(message)s", datefmt="[%X]", handlers=[handler], force=True)
    main = os.environ.get("RANK", "0") == "0"
    for name in ("cove_dist", "data_pipeline", "launch"):
        logging.getLogger(name).setLevel(logging.INFO if main else logging.ERROR)
    torch._logging.set_logs(all=logging.ERROR)
    warnings.filterwarnings("ignore", module="torch|torchrec|fbgemm_gpu")
    warnings.filterwarnings("ignore", message=".*autograd kernel was not registered.*")
