"""How each kind is printed: its columns, and the cells of one object."""
