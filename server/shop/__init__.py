"""What a chain sells, and where: stores, their terminals, and the catalogue."""
