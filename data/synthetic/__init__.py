"""The drawn data set: subjects with exact mattes over drawn scenes, nothing to download."""
