"""Quiet-STaR on vLLM: models that think before every token they say.

The modules beside this file are plain torch and import neither vLLM nor FastAPI; `vllm_plugin/`
puts the same mathematics into vLLM's own scheduler and model runner.
"""
