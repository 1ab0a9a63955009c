"""The shop with one more page: it leaks what it is given, in every way code leaks things."""
