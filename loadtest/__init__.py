"""Load tests for any OpenAI-compatible server.

From the command line to the report, one package per step; a package imports those above it only:

    errors, records   what goes wrong; what is recorded: the contract between sending and reporting
    traffic/          what is to be sent, and when
    client/           one request and its answer; what a server is
    sending/          a whole plan, from worker processes, cell by cell
    analysis/         from records to figures, intervals and verdicts
    reporting/        files, tables, plots, the live view
    cli, options      the command line
    session           a run, from the first request to the report
    scenarios         recipes, as YAML files
    testserver        a server whose every delay is known
    capacity          what the client can drive, measured against it
"""
