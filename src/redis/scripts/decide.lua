-- What every script ends with: reads the state of each key, decides all or none, writes what changed.
-- ARGV: for each key the fields below. Reply: the time, then for each key whether it was granted and what is used.

local FIELDS = {
  'tokens', 'period', 'capacity', 'delay_max', 'cost', 'reserved', 'enforced', 'first',
  'window', 'used', 'before', 'owed', 'owed_before',
}
-- a state outlives its meaning by this, in milliseconds, so that clocks that differ a little lose nothing
local LINGER = 1000
local LIFE_MAX = 1e15

local states, checks, refused = {}, {}, false

for i, key in ipairs(KEYS) do
  local at = (i - 1) * (#FIELDS + 1)
  local a = { algorithm = ARGV[at + 1] }
  for f, name in ipairs(FIELDS) do
    a[name] = tonumber(ARGV[at + 1 + f])
  end
  local algorithm = algorithms[a.algorithm]
  local s = states[key]
  if not s then
    local text = redis.call('GET', key)
    s = text and algorithm.read(text, a)
    if text and not s and not string.match(text, '^%l+ [%w%.%+%- ]+$') then
      return redis.error_reply('FOREIGN a key of spillgate holds a value that is not its own')
    end
    local known = s ~= nil and s ~= false
    s = s or algorithm.none(a)
    if a.first == 1 or not known then
      algorithm.know(s, a)
    end
    s.dirty = (known and a.first == 1) or s.used > 0 and not known
    states[key] = s
  end
  if a.owed ~= 0 or a.owed_before ~= 0 then
    algorithm.owe(s, a)
    s.dirty = true
  end
  s.algorithm, s.args = algorithm, a
  local granted = algorithm.free(s, a) + HAIR >= a.cost + a.reserved
  if granted and a.cost > 0 and algorithm.late and algorithm.late(s, a) then
    granted = false
  end
  if granted then
    algorithm.add(s, a.cost)
    s.dirty = s.dirty or a.cost > 0
  elseif a.enforced == 1 then
    refused = true
  end
  checks[i] = { key = key, granted = granted, cost = a.cost }
end

if refused then
  for _, c in ipairs(checks) do
    if c.granted then
      local s = states[c.key]
      s.algorithm.add(s, -c.cost)
    end
  end
end

for key, s in pairs(states) do
  if s.dirty then
    local text, life = s.algorithm.write(s, s.args)
    redis.call('SET', key, text, 'PX', string.format('%.0f', math.min(LIFE_MAX, math.ceil(life / 1000) + LINGER)))
  end
end

local reply = { exact(now) }
for _, c in ipairs(checks) do
  local s = states[c.key]
  local told = s.algorithm.tell(s)
  reply[#reply + 1] = c.granted and '1' or '0'
  for _, part in ipairs(told) do
    reply[#reply + 1] = part
  end
end
return reply
