"""The command ``cove``: its subcommands, flags, and errors as one message.

The files in ``launch/`` call the same function, for torchrun. A subcommand is a module of `cove_dist.commands` with a
function ``run(arguments)``. It is imported when it runs, so that help, version and completion import neither torch nor
rich.
"""

from __future__ import annotations

import atexit
import difflib
import gc
import importlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import NoReturn

from cove_dist import __version__, allowed_packages
from cove_dist.commands import ALIASES, COMMANDS, FLAGS, OWN_CONFIGS
from cove_dist.config_folders import add_own_folder, check_own_folders
from cove_dist.errors import ConfigError
from cove_dist.faults.signals import named_signals
from cove_dist.process_exit import end_process, is_observed
from data_pipeline.errors import UserError

_SEVERAL = "Several runs: cove experiment or cove tune"
_PRINTED = "The composed configuration: --print-config"
INSTEAD = {"-m": _SEVERAL, "--multirun": _SEVERAL, "-c": _PRINTED, "--cfg": _PRINTED, "--info": _PRINTED}

# Messages of gloo, nccl and `HostRanks` after a rank is lost: a consequence, which must not hide the cause.
LOST_PEER = re.compile(
    r"closed by peer|reset by peer|remote process exited|Broken pipe|of this host ha(s|ve) ended", re.IGNORECASE
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a subcommand; on invalid input print one message and exit with 2, without waiting for other ranks.

    Args:
        arguments: Command-line arguments, the subcommand first; None: those of the process, which ends afterwards.
    """
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # for user-defined classes, as with python -m
    try:
        dispatch(list(sys.argv[1:] if arguments is None else arguments))
    except OSError as error:
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}")
    except (UserError, FloatingPointError) as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        from cove_dist.doctor import remedy

        if (hint := remedy(str(error.name).partition(".")[0])) is None:
            raise
        _fail(f"{error.name}: not installed. Run {hint}; cove doctor names all that is missing")
    except RuntimeError as error:
        if "RANK" not in os.environ or not LOST_PEER.search(str(error)):
            raise
        _fail("lost another rank, which has stopped: its own message says why")
    except KeyboardInterrupt as error:
        if str(error) and os.environ.get("RANK", "0") == "0":
            print(error, file=sys.stderr)
        _exit(getattr(error, "exit_code", 130))
    if arguments is None and not is_observed():
        end_process(0)


def dispatch(arguments: list[str]) -> None:
    """Run a subcommand, or print help, the version or the composed configuration.

    Raises:
        ConfigError: The subcommand or option does not exist.
    """
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        return _print(overview())
    if arguments[0] == "--version":
        return _print(f"cove_dist {__version__}")
    name = ALIASES.get(arguments[0], arguments[0].replace("-", "_"))
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise ConfigError(f"{arguments[0]}: no such command{hint} Commands: {', '.join(COMMANDS)}")
    if COMMANDS[name].config is None:
        flags, rest = {"-h", "--help"} & set(arguments), arguments[1:]
    else:
        flags, rest = parse_flags(arguments[1:])
    if "--version" in flags:
        _print(f"cove_dist {__version__}")
    elif {"-h", "--help"} & flags:
        from cove_dist.commands.help import help_of

        _print(help_of(name, COMMANDS[name], rest))
    elif "--print-config" in flags:
        from cove_dist.commands.print_config import printed

        _print(printed(str(COMMANDS[name].config), getattr(_module(name), "overrides", list)(rest)))
    else:
        if not COMMANDS[name].on_ranks and int(os.environ.get("WORLD_SIZE", 1)) > 1:
            shared = ", ".join(each for each, command in COMMANDS.items() if command.on_ranks)
            raise ConfigError(f"cove {name}: is one process; run it without torchrun, which is for {shared}")
        with named_signals(f"cove {name} stopped before its end", resumable=name == "train"):
            with without_collection():
                if COMMANDS[name].config is not None:
                    from cove_dist.console import quiet_libraries

                    quiet_libraries()
                run = _module(name).run
            run(rest)


@contextmanager
def without_collection() -> Iterator[None]:
    """Import torch and what needs it without garbage collection, a fifth of that time, which finds nothing.

    What was imported lives as long as the process: later collections leave it out.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)  # extension modules take for leaks what is there at the very end
        gc.enable()


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"cove_dist.commands.{name}")


def overview() -> str:
    """Return the help text of ``cove`` itself."""
    lines = [f"  {name:14}{command.about}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: cove COMMAND [key=value …]",
            "       torchrun --nproc_per_node=N -m cove_dist train [key=value …]     and evaluate, recommend, export",
            "",
            "commands:",
            *lines,
            "",
            "cove COMMAND --help      its settings, with their defaults and comments",
            "cove train --help model  the options of a group",
            "cove --version",
        ]
    )


def parse_flags(arguments: Sequence[str]) -> tuple[set[str], list[str]]:
    """Separate flags, folders of ``--config-dir`` and packages of `allowed_packages` from a subcommand's arguments.

    Raises:
        ConfigError: A flag is unknown (such as those of Hydra's launcher); the message states the replacement.
    """
    flags: set[str] = set()
    rest, following = [], iter(arguments)
    for argument in following:
        if argument.partition("=")[0] == OWN_CONFIGS:
            add_own_folder(argument.partition("=")[2] or next(following, ""))
        elif argument.partition("=")[0] == allowed_packages.KEY:
            allowed_packages.allow_from_argument(argument.partition("=")[2])
        elif argument in FLAGS:
            flags.add(argument)
        elif argument.startswith("-"):
            instead = INSTEAD.get(argument.partition("=")[0], "settings have the form key=value, without dashes")
            allowed = ", ".join((*FLAGS, f"{OWN_CONFIGS}=FOLDER"))
            raise ConfigError(f"{argument}: no such option; allowed: {allowed}. {instead}")
        else:
            rest.append(argument)
    check_own_folders()
    return flags, rest


def _print(text: str) -> None:
    """Print a text on one rank only."""
    if os.environ.get("RANK", "0") == "0":
        try:
            print(text, flush=True)
        except BrokenPipeError:  # its reader, such as head, has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str) -> NoReturn:
    rank = os.environ.get("RANK")
    where = f" (rank {rank})" if rank is not None else ""
    print(f"error{where}: {message}", file=sys.stderr, flush=True)
    _exit(2)


def _exit(code: int) -> NoReturn:
    """Exit immediately: with ``sys.exit``, unfinished collectives of other threads would block all ranks."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
