"""An OpenAI-compatible server for models that think before every token.

The way of a request: lifecycle.py (connection) → middleware/ → app.py (route) → requests/
→ api/ → engine/.

__main__.py     `python -m server MODEL [options]`
cli.py          options of the command line, exit statuses, errors in one line
environment.py  environment variables that must be set before vLLM is imported
lifecycle.py    one server process: its socket, its engine, uvicorn, and how they end
health.py       the routes `/health` and `/ping`
greeting.py     what a ready server prints: a command to paste into a shell
app.py          the FastAPI application: routes and the order of the middleware
first_error.py  request models that stop at the first error of each list and map
errors.py       refusals of a request, failures to start, exit statuses
vllm_api.py     everything that is imported from vLLM; no other file imports it
middleware/     what a request passes before its route: size, time, API key, shutdown
requests/       requests: how they are parsed, and which are refused
api/            completions and chats with thoughts: serving, responses, streams
admission/      how much work may wait, what a request costs, how long it may take
engine/         the engine: options, start, failures
metrics/        `/metrics` for Prometheus
page/           the page at `/` and the page about the API
"""

__version__ = "0.1.0"
