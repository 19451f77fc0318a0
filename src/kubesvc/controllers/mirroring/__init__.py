"""EndpointSlices that mirror hand-written Endpoints of Services without a selector."""
