"""Instruments: models, data, training, evaluation, memory, quantisation (see README.md).

Nothing here asks a question or draws.
"""

import logging

# Silence the warning about the missing 4-bit kernel: on a CPU with AVX512-BF16, bitsandbytes asks
# for one that is not used here.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
