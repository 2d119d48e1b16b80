-- Fixed window: a counter that expires with its window.
algorithms['fixed-window'] = like(window, {
  free = function(s, a)
    return a.capacity - s.used
  end,
  write = function(s, a)
    return window.write(s, a, 1)
  end,
})
