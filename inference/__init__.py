"""Photos and videos to outputs: names, stages, rendering, the manifest."""
