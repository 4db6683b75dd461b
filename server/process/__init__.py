"""The processes that run in production: the supervisor, its children, and what each of them is made of."""
