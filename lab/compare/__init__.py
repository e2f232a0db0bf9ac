"""Two runs of the lab compared: one's own results with those of another folder."""
