"""A training run: the trainer, its optimizer, its folder, its report."""
