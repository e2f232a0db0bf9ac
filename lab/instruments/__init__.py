"""What measures: models, data, training, evaluation, memory, quantisation.

Nothing here asks a question or draws.
"""

import logging

# On a CPU with AVX512-BF16 bitsandbytes says at its import that a kernel is not installed, which is
# not used here.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
