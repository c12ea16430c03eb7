"""Programs that run alone: single files of the standard library, started with `python3 -I -S`."""
