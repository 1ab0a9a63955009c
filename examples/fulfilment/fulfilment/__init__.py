"""The warehouse of the tea shop: what has to be sent, where to, and how far it has got."""
