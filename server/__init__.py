"""The service: start-up, the two ports, members, promotions, checkout, the CRM stream."""
