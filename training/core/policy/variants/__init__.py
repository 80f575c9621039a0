"""Named variants, one module each: a published method as the parts of a round in which it differs from others.

What a paper does not say is a default by name, marked INFERRED.
"""
