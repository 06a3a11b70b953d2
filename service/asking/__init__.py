"""From a request to a job: bounds, the queue, many at once, how it stands."""
