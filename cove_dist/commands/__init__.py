"""The subcommands of ``cove``: each module has ``run(arguments)``; its docstring is the text of ``--help``."""
