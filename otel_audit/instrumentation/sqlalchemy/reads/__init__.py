"""What statements read of sensitive tables."""
