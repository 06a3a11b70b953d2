"""Parts that several families share: their values, blocks, shelves and computation."""
