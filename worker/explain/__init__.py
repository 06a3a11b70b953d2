"""How one cell of a block was computed: the cells that it was made of, and the formula in words."""
