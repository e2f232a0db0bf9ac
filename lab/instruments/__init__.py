"""What measures: models, data, training, evaluation, memory, quantisation. Nothing here asks a question or draws."""
