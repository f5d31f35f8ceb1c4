"""Checkpoints for others: as directories that ``transformers`` loads without the project."""
