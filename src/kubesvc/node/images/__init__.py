"""Images: named, pulled from registries or loaded from archives, kept by content, mounted as containers' roots."""
