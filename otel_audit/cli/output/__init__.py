"""What commands print: tables, trees, sentences, in colours or for programs."""
