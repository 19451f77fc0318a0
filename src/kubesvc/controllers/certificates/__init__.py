"""CertificateSigningRequests: nodes' own are approved, what is approved is signed, what is done with goes."""
