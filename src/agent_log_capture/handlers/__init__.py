"""Lambda's entry points."""

import gc

# Imports leave nothing to collect, and looking for it is a tenth of a cold start. Once they are done, bootstrap.py
# switches it on again.
gc.disable()
