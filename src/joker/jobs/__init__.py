"""Jobs: jokes asked for, told elsewhere or later, and what became of them."""
