"""What a training run needs, before it is paid for: placement of tables, bytes per rank, traffic and time of a step."""
