"""The quiz: questions on a track's results, at a terminal."""
