"""EndpointSlices: which addresses answer for each Service that has a selector."""
