"""Tasks of lm-evaluation-harness: start it with `--include_path training/evaluations/harness`."""
