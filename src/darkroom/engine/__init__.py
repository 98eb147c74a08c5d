"""The engine: the model's stages. The only package that imports torch."""

import os

# OpenMP's threads spin while they wait for one another, which on a machine with anything else to do makes an edit take
# many times as long. Read when torch is loaded, hence here; an operator's own choice stands, and so does what a worker
# is told (`worker.environment`).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
