-- Leaky bucket: as the token bucket, but what would wait longer than allowed for its turn is refused.
algorithms['leaky-bucket'] = like(bucket, {
  late = function(s, a)
    return a.delay_max >= 0 and s.used * a.period / a.tokens > a.delay_max + HAIR
  end,
})
