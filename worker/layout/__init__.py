"""The picture: where every block of a GPT stands, and the forms in which that is told."""
