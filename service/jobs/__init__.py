"""From a checked request to a job and back: limits, admission, the queue, status, batches."""
