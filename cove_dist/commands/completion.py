"""Complete subcommands, groups and their options in the shell.

eval "$(cove completion bash)"      # in ~/.bashrc
eval "$(cove completion zsh)"       # in ~/.zshrc, after compinit
"""

from __future__ import annotations

from collections.abc import Sequence

from cove_dist.commands import COMMANDS, FLAGS, OWN_CONFIGS
from cove_dist.commands.help import SHIPPED, defaults_of
from cove_dist.config_folders import options
from cove_dist.errors import ConfigError

BASH = """_cove() {
  local word=${COMP_LINE:0:COMP_POINT}; word=${word##* }
  local before=${word%"${word##*[=:]}"}
  COMPREPLY=($(cove completion words "${COMP_LINE:0:COMP_POINT}"))
  COMPREPLY=("${COMPREPLY[@]#"$before"}")
  [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace
}
complete -o default -F _cove cove"""
ZSH = """_cove() {
  local -a found
  found=(${(f)"$(cove completion words "${(j: :)words[1,CURRENT]}")"})
  compadd -S '' -- ${(M)found:#*=}
  compadd -- ${found:#*=}
}
compdef _cove cove"""


def run(arguments: Sequence[str]) -> None:
    """Print the script of a shell, or the words that may stand at the end of a command line.

    Raises:
        ConfigError: The shell is unknown.
    """
    if len(arguments) == 2 and arguments[0] == "words":
        print("\n".join(words(arguments[1])))
    elif list(arguments) in (["bash"], ["zsh"]):
        print(BASH if arguments[0] == "bash" else ZSH)
    else:
        raise ConfigError(f"completion {' '.join(arguments)}: give a shell, bash or zsh: {__doc__.strip()}")


def words(line: str) -> list[str]:
    """Return what may stand at the end of a command line.

    Example:
        >>> words("cove train model=dee")
        ['model=deepfm']
    """
    *before, last = line.split(" ")
    before = [word for word in before if word]
    if len(before) < 2:
        return [name for name in COMMANDS if name.startswith(last)]
    name, command = before[1], COMMANDS.get(before[1])
    if command is None or command.config is None:
        return []
    groups = [group for group in defaults_of(command.config) if group != "task"]
    if "=" in last and last.partition("=")[0] in groups:
        group = last.partition("=")[0]
        found = [f"{group}={option}" for option in options(group)]
    else:
        files = options(SHIPPED[name]) if name in SHIPPED else []
        found = [*(f"{group}=" for group in groups), *files, *FLAGS, f"{OWN_CONFIGS}="]
    return [word for word in found if word.startswith(last)]
