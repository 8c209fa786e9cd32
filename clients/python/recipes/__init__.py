"""Trainings of the papers' systems and of the shipped checkpoints: python3 -m recipes.NAME --help."""
