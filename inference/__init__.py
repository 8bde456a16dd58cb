"""From photos and videos to output files: which files, what they are called, what is drawn, what is reported."""
