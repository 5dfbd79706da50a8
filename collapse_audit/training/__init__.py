"""Train a prototype head, with or without a diversity regulariser, and audit what became of it."""
