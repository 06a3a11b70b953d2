"""Models, inference and layouts, without HTTP."""
