"""Who acts, from what the application has found out, and who has taken over whose account."""
