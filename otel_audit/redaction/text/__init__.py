"""Where secrets lie in a text: by their shape, beside a name, in markup, in forms, in SQL."""
