-- Sliding window: of the window before counts the part that a window ending now still covers.
algorithms['sliding-window'] = like(window, {
  free = function(s, a)
    local covered = math.min(a.period, math.max(0, (s.number + 1) * a.period - now))
    return a.capacity - s.used - s.before * covered / a.period
  end,
  write = function(s, a)
    return window.write(s, a, 2)
  end,
})
