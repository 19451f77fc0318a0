"""Who asks, where no certificate says it: bearer tokens, issued (TokenRequest), verified and reviewed here.

Authorization: Bearer TOKEN ─► bearer ─► tokens: signature, times, audience, what it is bound to is there ─► User
"""
