"""Who acts: users, their logins and logouts, and who has taken over whose account."""
