"""What is kept in Redis: requests by their ids, results in pieces, events of what is under way."""
