"""Many results.json files -> one comparison; `python -m ssl_zoo.report <folders>`."""
