"""Other frameworks: their weights in and out, and our layers inside of them."""
