-- Token bucket: so many at once, refilled at the rate.
algorithms['token-bucket'] = bucket
