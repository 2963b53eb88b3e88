"""From raw files to a prepared folder, by the whole of preparation."""
