"""What tests share: databases, running servers, certificates, commands."""
