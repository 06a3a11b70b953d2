"""`cutaway up`: embedded Redis servers, workers and the API as child processes."""
