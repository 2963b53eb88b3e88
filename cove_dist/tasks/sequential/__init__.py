"""Sequential recommendation: continuing sequences of items by scoring all items (paper, section 4.2)."""
