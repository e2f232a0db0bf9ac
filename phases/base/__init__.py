"""What every package uses: files, paths, strict JSON, text."""
