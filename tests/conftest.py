"""Settings that must be in place before torch and vLLM are imported, and the shared servers."""

import os

# The models of the tests are tiny: more threads than one would only wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"
# Bound to one core, an engine would wait for whatever else runs there.
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
# Engines in the test's own process can be looked into. Servers are processes of their own.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"

# The fixtures of servers that tests of all packages share. Imported after the lines above.
pytest_plugins = ["tests.support.servers"]
