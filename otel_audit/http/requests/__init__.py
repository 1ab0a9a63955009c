"""Records of the requests that come in, whatever framework answers them."""
