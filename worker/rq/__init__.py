"""RQ: queues, workers and jobs. The only package that imports it."""
