"""The lab report site: all reports, predictions, questions, concepts, and an explorer of trials."""
