"""MLPerf's text-to-video scenarios on a real pipeline, driven by MLCommons' LoadGen."""
