"""The legacy Endpoints object of each Service that has a selector."""
