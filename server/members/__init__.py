"""Members: by what they are recognised, what is known of them, and how that changes."""
