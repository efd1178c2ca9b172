"""What the tests of the library share."""

import os

# Waiting threads that spin make every small training slow on a machine that others use too. The OpenMP library reads
# this once, when it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
