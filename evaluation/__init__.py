"""Scoring mattes: one matte, whole sets, tables."""
