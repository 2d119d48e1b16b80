-- Who is there: each node says how it decides, and hears what the others said last, and how long ago.
-- KEYS[1]: the register. ARGV: the node, how it decides. Reply: node, word, age in microseconds, and so on.

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local FORGOTTEN = 3600000000

redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. string.format('%.17g', now))
redis.call('EXPIRE', KEYS[1], 3600)
local reply = {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local word, at = string.match(all[i + 1], '^(%S+) (%S+)$')
  local age = now - (tonumber(at) or 0)
  if not word or age > FORGOTTEN then
    redis.call('HDEL', KEYS[1], all[i])
  elseif all[i] ~= ARGV[1] then
    reply[#reply + 1] = all[i]
    reply[#reply + 1] = word
    reply[#reply + 1] = string.format('%.0f', age)
  end
end
return reply
