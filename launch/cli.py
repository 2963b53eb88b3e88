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

from cove_dist import __version__
from cove_dist.config.composition import compose_yaml, config_folder, options
from cove_dist.console import console
from cove_dist.errors import ConfigError
from data_pipeline.errors import UserError

USAGE = """{doc}
usage: {program} [--help | --print-config | --version] [group=option …] [key=value …]

{groups}keys, with their defaults (see the comments in {folder}):
{config}"""

FLAGS = ("-h", "--help", "--print-config", "--version")
_SEVERAL = "Several runs: python launch/experiment.py or launch/tune.py"
_PRINTED = "The composed configuration: --print-config"
INSTEAD = {"-m": _SEVERAL, "--multirun": _SEVERAL, "-c": _PRINTED, "--cfg": _PRINTED, "--info": _PRINTED}

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
        flags = [argument for argument in arguments if argument.startswith("-")]
        check_flags(flags)
        rest = [argument for argument in arguments if argument not in flags]
        if "--version" in flags:
            _print(f"cove_dist {__version__}")
        elif {"-h", "--help"} & set(flags):
            _print(_help(program, doc, config_name, adapt(rest)))
        elif "--print-config" in flags:
            _print(OmegaConf.to_yaml(compose_yaml(config_name, adapt(rest))).rstrip())
        else:
            action(adapt(rest))
    except OSError as error:
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}")
    except (UserError, FloatingPointError) as error:
        _fail(str(error))
    except RuntimeError as error:
        if "RANK" not in os.environ or not LOST_PEER.search(str(error)):
            raise
        _fail("lost another rank, which has stopped: its own message says why")
    except KeyboardInterrupt as error:
        if str(error) and os.environ.get("RANK", "0") == "0":
            print(error, file=sys.stderr)
        _exit(getattr(error, "exit_code", 130))


def check_flags(flags: Sequence[str]) -> None:
    """Refuse options that no program has, those of Hydra's launcher among them.

    Raises:
        ConfigError: with what to write instead.
    """
    for flag in flags:
        name = flag.partition("=")[0]
        if flag not in FLAGS:
            instead = INSTEAD.get(name, "settings have the form key=value, without dashes")
            raise ConfigError(f"{flag}: no such option; allowed: {', '.join(FLAGS)}. {instead}")


def _print(text: str) -> None:
    """Show a text once, however many ranks there are."""
    if os.environ.get("RANK", "0") == "0":
        print(text)


def _fail(message: str) -> None:
    rank = os.environ.get("RANK")
    where = f" (rank {rank})" if rank is not None else ""
    print(f"error{where}: {message}", file=sys.stderr, flush=True)
    _exit(2)


def _exit(code: int) -> None:
    """End at once: after ``sys.exit``, unfinished collectives of other threads would keep all ranks waiting."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _help(program: str, doc: str, config_name: str, overrides: Sequence[str]) -> str:
    composed = compose_yaml(config_name, overrides)
    folder = config_folder()
    known = {*composed, "experiment"} if config_name == "train" else set(composed)
    groups = [path.name for path in sorted(folder.iterdir()) if path.is_dir() and path.name in known]
    lines = [f"  {group}: {', '.join(options(group))}" for group in groups]
    listed = "\n".join(["groups:", *lines, "", ""]) if lines else ""
    config = "\n".join("  " + line for line in OmegaConf.to_yaml(composed).splitlines())
    return USAGE.format(doc=doc, program=program, groups=listed, folder=folder.name, config=config)


def quiet_libraries() -> None:
    """Our own messages at INFO; other libraries' only when they are errors."""
    handler = RichHandler(console=console, show_path=False, show_level=False, omit_repeated_times=False)
    logging.basicConfig(level=logging.ERROR, format="%(message)s", datefmt="[%X]", handlers=[handler], force=True)
    main = os.environ.get("RANK", "0") == "0"
    logging.getLogger("hydra").setLevel(logging.CRITICAL)  # what it logs, it raises as well
    for name in ("cove_dist", "data_pipeline", "launch"):
        logging.getLogger(name).setLevel(logging.INFO if main else logging.ERROR)
    torch._logging.set_logs(all=logging.ERROR)
    warnings.filterwarnings("ignore", module="torch|torchrec|fbgemm_gpu")
    warnings.filterwarnings("ignore", message=".*autograd kernel was not registered.*")
