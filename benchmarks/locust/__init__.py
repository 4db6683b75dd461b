"""Load tests with Locust: registers that hold their connection, sell real baskets, and check every answer."""
