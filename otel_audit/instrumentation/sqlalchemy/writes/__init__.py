"""What is captured of statements that write."""
