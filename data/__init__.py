"""Datasets, transforms, and the embedded synthetic matting set."""
