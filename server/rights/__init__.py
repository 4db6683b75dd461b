"""Rights and audiences: coupons, segments and personal offers, and the commands that load them."""
